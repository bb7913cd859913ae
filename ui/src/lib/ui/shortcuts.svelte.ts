/** Keyboard: "/" search, "g" and a letter to go somewhere, "?" for the list. */
import { here, router } from '../router.svelte';

export const targets = { m: 'models', o: 'process', c: 'changes', p: 'pipelines', r: 'runs', d: 'data', l: 'lineage', a: 'audit' } as const;

class Shortcuts {
  open = $state(false);
}
export const shortcuts = new Shortcuts();
export const openShortcuts = () => (shortcuts.open = true);

let afterG = 0;
export function onKey(event: KeyboardEvent) {
  const target = event.target as HTMLElement;
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest('input, textarea, select, dialog, [popover]')) return;
  if (event.key === '/') {
    const search = document.querySelector<HTMLInputElement>('input[type="search"]');
    if (!search) return;
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === '?') {
    openShortcuts();
  } else if (event.key === 'g') {
    afterG = event.timeStamp;
  } else if (event.timeStamp - afterG < 1500 && event.key in targets && router.project) {
    afterG = 0;
    router.go(here(targets[event.key as keyof typeof targets]));
  }
}
