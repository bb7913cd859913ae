/** Numbers, sizes, durations and times for people; Latin digits in both languages. */
import { i18n, t } from './i18n/index.svelte';
import type { Micros } from './types';

const locale = () => (i18n.language === 'ar' ? 'ar-AE-u-nu-latn' : 'en-GB');
const cache = new Map<string, Intl.NumberFormat | Intl.DateTimeFormat>();
function numbers(options: Intl.NumberFormatOptions): Intl.NumberFormat {
  const key = locale() + JSON.stringify(options);
  let format = cache.get(key) as Intl.NumberFormat | undefined;
  if (!format) cache.set(key, (format = new Intl.NumberFormat(locale(), options)));
  return format;
}
function dates(options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = locale() + 'd' + JSON.stringify(options);
  let format = cache.get(key) as Intl.DateTimeFormat | undefined;
  if (!format) cache.set(key, (format = new Intl.DateTimeFormat(locale(), { ...options, timeZone: 'UTC' })));
  return format;
}

export const NONE = '–';

export const int = (value: number | null): string => (value === null ? NONE : numbers({ maximumFractionDigits: 0 }).format(value));
/** A measured number: 3 decimals for shares such as AUC, fewer digits when large. */
export function num(value: number | null): string {
  if (value === null) return NONE;
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e9) return int(value);
  if (size >= 1e9 || (size > 0 && size < 0.0005)) return numbers({ notation: 'scientific', maximumSignificantDigits: 3 }).format(value);
  return numbers(size < 10 ? { minimumFractionDigits: 3, maximumFractionDigits: 3 } : { maximumFractionDigits: 1 }).format(value);
}
export const signed = (value: number | null): string =>
  value === null ? NONE : numbers({ minimumFractionDigits: 3, maximumFractionDigits: 3, signDisplay: 'exceptZero' }).format(value);
export const percent = (share: number | null, digits = 0): string =>
  share === null ? NONE : numbers({ style: 'percent', maximumFractionDigits: digits }).format(share);
export const compact = (value: number): string => numbers({ notation: 'compact', maximumFractionDigits: 1 }).format(value);

export function bytes(size: number): string {
  const units = ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte'] as const;
  let index = 0;
  while (size >= 1000 && index < units.length - 1) {
    size /= 1000;
    index++;
  }
  return numbers({ style: 'unit', unit: units[index]!, unitDisplay: index === 0 ? 'narrow' : 'short', maximumFractionDigits: size < 10 && index > 0 ? 1 : 0 }).format(size);
}
export function milliseconds(value: number | null): string {
  if (value === null) return NONE;
  return numbers({ style: 'unit', unit: 'millisecond', unitDisplay: 'short', maximumSignificantDigits: 3 }).format(value);
}
/** "420 ms", "4.1 s", "3 min 20 s", "2 h 5 min" */
export function duration(ms: number | null): string {
  if (ms === null) return NONE;
  if (ms < 1000) return milliseconds(Math.round(ms));
  const unit = (value: number, name: string, digits = 0) =>
    numbers({ style: 'unit', unit: name, unitDisplay: 'short', maximumFractionDigits: digits }).format(value);
  const seconds = ms / 1000;
  if (seconds < 60) return unit(seconds, 'second', seconds < 10 ? 1 : 0);
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return [unit(minutes, 'minute'), unit(Math.round(seconds % 60), 'second')].join(' ');
  return [unit(Math.floor(minutes / 60), 'hour'), unit(minutes % 60, 'minute')].join(' ');
}

export const date = (at: Micros): string => dates({ year: 'numeric', month: 'short', day: 'numeric' }).format(at / 1000);
export const monthDay = (at: Micros): string => dates({ month: 'short', day: 'numeric' }).format(at / 1000);
export const dateTime = (at: Micros): string =>
  dates({ year: 'numeric', month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false }).format(at / 1000) + ' UTC';
export const clock = (at: Micros): string => dates({ hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false }).format(at / 1000);
export const iso = (at: Micros): string => new Date(at / 1000).toISOString();

/** "3 min. ago"; the date once it is older than 20 days. */
export function ago(at: Micros, now = Date.now()): string {
  const seconds = (at / 1000 - now) / 1000;
  const size = Math.abs(seconds);
  if (size < 5) return t().justNow;
  const steps: [number, Intl.RelativeTimeFormatUnit][] = [
    [60, 'second'],
    [3600, 'minute'],
    [86_400, 'hour'],
    [20 * 86_400, 'day'],
  ];
  let per = 1;
  for (const [limit, unit] of steps) {
    if (size < limit) return new Intl.RelativeTimeFormat(locale(), { style: 'short' }).format(Math.round(seconds / per), unit);
    per = limit;
  }
  return date(at);
}
/** "sha256:9f2c1a…" shortened to its first ten hex digits. */
export const short = (digest: string): string => digest.replace(/^sha256:/, '').slice(0, 10);
/** "chg_…01jd2f": of every long machine part its last six characters, which differ between neighbours; words stay whole. */
export const shortId = (id: string): string =>
  id.startsWith('sha256:') ? short(id) : /^[0-9a-f]{32}$/.test(id) ? id.slice(0, 8) : id.replace(/(?<![0-9a-z])[0-9a-z]{14,}([0-9a-z]{6})(?![0-9a-z])/g, '…$1');
