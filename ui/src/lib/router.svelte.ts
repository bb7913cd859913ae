/** Hash routes: "#/p/flights/models/delay?environment=production". The URL holds every filter. */

export interface Location {
  /** decoded path segments */
  segments: string[];
  query: Record<string, string>;
  /** path without the query: the identity of the page */
  path: string;
}

function parse(hash: string): Location {
  const [rawPath = '', rawQuery = ''] = hash.replace(/^#/, '').split('?', 2);
  const segments = rawPath.split('/').filter(Boolean).map(decode);
  return { segments, query: Object.fromEntries(new URLSearchParams(rawQuery)), path: '/' + segments.join('/') };
}
function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

class Router {
  at = $state.raw<Location>(parse(location.hash));

  constructor() {
    addEventListener('hashchange', () => (this.at = parse(location.hash)));
  }
  /** the project in the URL, "" outside of one */
  get project(): string {
    return this.at.segments[0] === 'p' ? (this.at.segments[1] ?? '') : '';
  }
  go(hash: string) {
    location.hash = hash;
  }
  /** Replaces filters without a new history entry; empty values disappear from the URL. */
  set(changes: Record<string, string>) {
    const query = { ...this.at.query, ...changes };
    history.replaceState(null, '', href(this.at.segments, query));
    this.at = parse(location.hash);
  }
}
export const router = new Router();

export function href(segments: (string | number)[], query: Record<string, string | number> = {}): string {
  const kept = Object.entries(query).filter(([, value]) => value !== '');
  const tail = new URLSearchParams(kept.map(([key, value]) => [key, String(value)])).toString();
  return '#/' + segments.map((part) => encodeURIComponent(part)).join('/') + (tail ? '?' + tail : '');
}
/** A link inside the current project. */
export function here(...segments: (string | number)[]): string {
  return href(['p', router.project, ...segments]);
}
