/** Building blocks of the sentences. */

/** Isolates a machine string inside a sentence, left to right, so that "@3" stays itself in Arabic. */
export const iso = (value: string | number | undefined): string => `\u2066${value ?? ''}\u2069`;

export type Args = Record<string, string | number>;

/** Formats are dear to make and cheap to use: one per language and kind. */
const formats = new Map<string, Intl.NumberFormat>();
export function number(locale: string, value: string | number | undefined): string {
  if (typeof value !== 'number') return iso(value);
  const whole = Number.isInteger(value);
  const key = locale + whole;
  let format = formats.get(key);
  if (!format) formats.set(key, (format = new Intl.NumberFormat(locale, whole ? {} : { maximumSignificantDigits: 3 })));
  return format.format(value);
}
