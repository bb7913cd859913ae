/** The pages' only way to the server: JSON over fetch, errors always a Problem. */
import type { Problem } from './types';

export const BASE = '/api/falaj/v1';

/** An error with everything a person needs; thrown by every call. */
export class ApiError extends Error {
  constructor(readonly problem: Problem) {
    super(problem.title);
  }
}

/** Requests in flight; the document carries it so that a test can wait for a finished page. */
let pending = 0;
function count(by: 1 | -1) {
  pending += by;
  document.documentElement.dataset.pending = String(pending);
}
count(1);
/** Called once by main after the first page is mounted. */
export const started = () => count(-1);
/** Marks work that is not a request, such as loading a page's code. */
export async function during<T>(work: Promise<T>): Promise<T> {
  count(1);
  try {
    return await work;
  } finally {
    // One frame later: whatever the result causes has begun, so the count never touches 0 between.
    requestAnimationFrame(() => setTimeout(() => count(-1)));
  }
}

let onUnauthenticated = () => {};
export function whenUnauthenticated(fn: () => void) {
  onUnauthenticated = fn;
}

export async function call<T>(method: 'GET' | 'POST', path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  return during(send<T>(method, path, body, signal));
}

async function send<T>(method: string, path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  let response: Response;
  try {
    response = await fetch(BASE + path, {
      method,
      headers: { Accept: 'application/json', ...(body === undefined ? {} : { 'Content-Type': 'application/json' }) },
      body: body === undefined ? null : JSON.stringify(body),
      credentials: 'same-origin',
      signal: signal ?? null,
    });
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new ApiError(problem(0, 'unreachable'));
  }
  if (response.status === 401 && path !== '/login') onUnauthenticated();
  if (response.status === 204) return undefined as T;
  const text = await response.text();
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = null;
  }
  if (response.ok && value !== null) return value as T;
  throw new ApiError({ ...problem(response.status, value === null ? 'not_json' : 'internal'), ...(value as object | null) });
}

function problem(status: number, code: string): Problem {
  return { title: '', detail: '', status, next: '', code, args: {}, field: '' };
}

/** "/projects/flights/models/delay?points=400": every part is escaped, empty query values are left out. */
export function path(parts: (string | number)[], query: Record<string, string | number | null | undefined> = {}): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== '') search.set(key, String(value));
  }
  const tail = search.toString();
  return '/' + parts.map((part) => encodeURIComponent(part)).join('/') + (tail ? '?' + tail : '');
}
