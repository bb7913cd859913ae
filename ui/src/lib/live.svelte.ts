/** Live updates: one server-sent event stream for the open project, resumed by sequence with back-off. */
import { BASE, path } from './api';
import type { CloudEvent } from './types';

type Listener = (event: CloudEvent) => void;
export type LiveState = 'off' | 'connecting' | 'live' | 'waiting';

class Live {
  state = $state<LiveState>('off');
  #project = '';
  #source: EventSource | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;
  #last = 0;
  #listeners = new Set<Listener>();

  /** Opens the stream of a project; "" closes it. */
  follow(project: string) {
    if (project === this.#project) return;
    this.#project = project;
    this.#last = 0;
    this.#failures = 0;
    this.#close();
    if (project) this.#open();
    else this.state = 'off';
  }
  on(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
  #close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }
  #open() {
    this.state = 'connecting';
    const source = new EventSource(BASE + path(['projects', this.#project, 'events'], { after: this.#last || null }));
    this.#source = source;
    source.onopen = () => {
      this.#failures = 0;
      this.state = 'live';
    };
    source.onmessage = (message: MessageEvent<string>) => {
      const event = JSON.parse(message.data) as CloudEvent;
      this.#last = event.seq;
      for (const listener of this.#listeners) listener(event);
    };
    // The browser's own retry has no back-off and gives up on an HTTP error: ours does neither.
    source.onerror = () => {
      this.#close();
      this.state = 'waiting';
      const ceiling = Math.min(30_000, 1000 * 2 ** this.#failures++);
      this.#timer = setTimeout(() => this.#open(), ceiling / 2 + Math.random() * (ceiling / 2));
    };
  }
}
export const live = new Live();

/** "change.approved" belongs to "change". */
export const about = (event: CloudEvent, ...kinds: string[]) => kinds.some((kind) => event.type === kind || event.type.startsWith(kind + '.'));
