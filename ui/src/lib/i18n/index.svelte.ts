/** Two typed dictionaries; a key that one of them lacks does not compile. */
import { storedLanguage, storeLanguage } from '../prefs.svelte';
import type { Note } from '../types';
import { en, type Dictionary } from './en';

export type Language = 'en' | 'ar';

class I18n {
  language = $state<Language>('en');
  dictionary = $state.raw<Dictionary>(en);

  /** Arabic is a chunk of its own: English pages do not load it. */
  async use(language: Language) {
    this.dictionary = language === 'ar' ? (await import('./ar')).ar : en;
    this.language = language;
    document.documentElement.lang = language;
    document.documentElement.dir = this.rtl ? 'rtl' : 'ltr';
  }
  async choose(language: Language) {
    storeLanguage(language);
    await this.use(language);
  }
  async start() {
    await this.use(storedLanguage());
  }
  get rtl(): boolean {
    return this.language === 'ar';
  }
}
export const i18n = new I18n();

/** The dictionary in use; reactive inside templates and $derived. */
export const t = (): Dictionary => i18n.dictionary;

/** The sentence of a note in the reader's language; null when only the server's English text exists. */
export function translated(note: Note): string | null {
  const sentence = (t().notes as Record<string, ((args: Note['args']) => string) | undefined>)[note.code];
  return sentence ? sentence(note.args) : null;
}
export const noteText = (note: Note): string => translated(note) ?? note.text;
