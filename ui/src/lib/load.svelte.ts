/** Loads one resource for a page and reads it again when an event says that it changed. */
import { ApiError, call } from './api';
import { live } from './live.svelte';
import type { CloudEvent, Problem } from './types';

export class Loader<T> {
  data = $state.raw<T | null>(null);
  error = $state.raw<Problem | null>(null);
  busy = $state(true);
  reload: () => void = () => {};
  /** Puts a fresher answer in place, such as the body of an accepted POST. */
  put(value: T) {
    this.data = value;
    this.error = null;
  }
}

/**
 * Must be called while a component is being set up. `path` is read reactively; null loads nothing.
 * `wants` chooses the events that make the data stale; at most one reload a second.
 */
export function load<T>(path: () => string | null, wants?: (event: CloudEvent) => boolean): Loader<T> {
  const loader = new Loader<T>();
  $effect(() => {
    const at = path();
    if (at === null) {
      loader.busy = false;
      return;
    }
    let abort = new AbortController();
    const read = async () => {
      abort.abort();
      const mine = (abort = new AbortController());
      loader.busy = true;
      try {
        const value = await call<T>('GET', at, undefined, mine.signal);
        if (mine.signal.aborted) return;
        loader.data = value;
        loader.error = null;
      } catch (cause) {
        if (mine.signal.aborted) return;
        if (!(cause instanceof ApiError)) throw cause;
        loader.error = cause.problem;
      }
      loader.busy = false;
    };
    loader.reload = () => void read();
    void read();

    let timer: ReturnType<typeof setTimeout> | undefined;
    const off = wants
      ? live.on((event) => {
          if (timer === undefined && wants(event)) {
            timer = setTimeout(() => {
              timer = undefined;
              void read();
            }, 1000);
          }
        })
      : undefined;
    return () => {
      abort.abort();
      clearTimeout(timer);
      off?.();
    };
  });
  return loader;
}
