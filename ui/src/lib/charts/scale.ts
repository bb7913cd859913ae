/** Scales and paths of the SVG charts. Charts run left to right in both languages. */

export type Scale = (value: number) => number;

export function linear(from: [number, number], to: [number, number]): Scale {
  const span = from[1] - from[0] || 1;
  return (value) => to[0] + ((value - from[0]) / span) * (to[1] - to[0]);
}

/** Smallest and largest finite value, padded by a share of the span; null when there is none. */
export function extent(values: Iterable<number | null>, pad = 0): [number, number] | null {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value === null || !Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return null;
  const room = (high - low || Math.abs(high) || 1) * pad;
  return [low - room, high + room];
}

/** About `count` round numbers inside the range. */
export function ticks([low, high]: [number, number], count: number): number[] {
  const raw = (high - low) / Math.max(1, count);
  if (!(raw > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((s) => s >= raw) ?? 10 * power;
  const result: number[] = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) result.push(Number((i * step).toPrecision(12)));
  return result;
}

export type Point = [number, number];
const at = ([x, y]: Point) => `${x.toFixed(1)},${y.toFixed(1)}`;

/** One path with a gap wherever a value is missing. */
export function line(points: (Point | null)[]): string {
  let path = '';
  let pen = false;
  for (const point of points) {
    if (point) path += (pen ? 'L' : 'M') + at(point);
    pen = point !== null;
  }
  return path;
}

/** Closed areas between two edges, one for each unbroken stretch. */
export function band(upper: (Point | null)[], lower: (Point | null)[]): string {
  let path = '';
  let start = 0;
  for (let i = 0; i <= upper.length; i++) {
    if (upper[i] && lower[i]) continue;
    if (i > start) {
      const there = upper.slice(start, i) as Point[];
      const back = (lower.slice(start, i) as Point[]).reverse();
      path += 'M' + [...there, ...back].map(at).join('L') + 'Z';
    }
    start = i + 1;
  }
  return path;
}
