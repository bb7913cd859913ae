/** Building blocks of the sentences. */

/** Isolates a machine string inside a sentence, left to right, so that "@3" stays itself in Arabic. */
export const iso = (value: string | number | undefined): string => `\u2066${value ?? ''}\u2069`;

export type Args = Record<string, string | number>;

export function number(locale: string, value: string | number | undefined, digits = 3): string {
  if (typeof value !== 'number') return iso(value);
  return new Intl.NumberFormat(locale, Number.isInteger(value) ? {} : { maximumSignificantDigits: digits }).format(value);
}
