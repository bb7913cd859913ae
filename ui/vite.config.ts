import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// The pages run under `default-src 'self'`: nothing may be inlined, not even small assets.
export default defineConfig({
  base: './',
  plugins: [svelte()],
  resolve: { alias: { $lib: new URL('./src/lib', import.meta.url).pathname } },
  build: {
    outDir: '../internal/ui/dist',
    emptyOutDir: false, // .gitkeep stays; scripts/clean.mjs removes the rest
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: 'es2023',
    manifest: 'manifest.json',
    reportCompressedSize: false,
  },
});
