/** Language and theme, kept in this browser only. */
export type Theme = 'auto' | 'light' | 'dark';

function read<T extends string>(key: string, allowed: readonly T[], fallback: T): T {
  try {
    const stored = localStorage.getItem(key) as T | null;
    return stored !== null && allowed.includes(stored) ? stored : fallback;
  } catch {
    return fallback; // storage may be forbidden: the page works without it
  }
}
function write(key: string, value: string) {
  try {
    localStorage.setItem(key, value);
  } catch {
    /* see read */
  }
}

class Prefs {
  theme = $state<Theme>(read('falaj.theme', ['auto', 'light', 'dark'] as const, 'auto'));
  /** counts theme changes, the system's included: canvases redraw on it */
  painted = $state(0);

  constructor() {
    this.#apply();
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.painted++);
  }
  setTheme(theme: Theme) {
    this.theme = theme;
    write('falaj.theme', theme);
    this.#apply();
    this.painted++;
  }
  #apply() {
    if (this.theme === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.theme;
  }
}
export const prefs = new Prefs();
export const storedLanguage = () => read('falaj.lang', ['en', 'ar'] as const, navigator.language.startsWith('ar') ? 'ar' : 'en');
export const storeLanguage = (language: string) => write('falaj.lang', language);
