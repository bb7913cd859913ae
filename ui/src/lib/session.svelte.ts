/** Who is signed in, which projects they see, and how they like their pages. */
import { ApiError, call, path, whenUnauthenticated } from './api';
import { live } from './live.svelte';
import { href, router } from './router.svelte';
import type { LoginRequest, Me, Page, Problem, Project, SetupRequest } from './types';

class Session {
  me = $state.raw<Me | null>(null);
  projects = $state.raw<Project[]>([]);
  error = $state.raw<Problem | null>(null);

  get signedIn(): boolean {
    return this.me !== null && this.me.actor.kind !== 'anonymous';
  }
  /** May see pages: signed in, or an open server. */
  get admitted(): boolean {
    return this.me !== null && (this.signedIn || this.me.open);
  }
  get project(): Project | undefined {
    return this.projects.find((p) => p.name === router.project);
  }

  async start() {
    whenUnauthenticated(() => this.toLogin());
    try {
      this.me = await call<Me>('GET', path(['me']));
      this.error = null;
      if (this.admitted) await this.#readProjects(); // else the shell leads to the door
    } catch (cause) {
      if (!(cause instanceof ApiError)) throw cause;
      this.error = cause.problem;
    }
  }
  async login(request: LoginRequest) {
    this.me = await call<Me>('POST', path(['login']), request);
    await this.#readProjects();
  }
  async setup(request: SetupRequest) {
    this.me = await call<Me>('POST', path(['setup']), request);
    await this.#readProjects();
  }
  async logout() {
    await call<void>('POST', path(['logout']), {});
    live.follow('');
    this.me = await call<Me>('GET', path(['me']));
    this.projects = [];
    router.go(href(['login']));
  }
  toLogin() {
    const from = router.at.segments[0];
    if (from === 'login' || from === 'setup') return;
    router.go(href(['login'], { next: location.hash.replace(/^#\/?$/, '') }));
  }
  async #readProjects() {
    this.projects = (await call<Page<Project>>('GET', path(['projects']))).items;
  }
}
export const session = new Session();
