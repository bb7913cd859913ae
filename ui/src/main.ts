import { mount } from 'svelte';
import './app.css';
import App from './App.svelte';
import { during, started } from '$lib/api';
import { i18n } from '$lib/i18n/index.svelte';
import { session } from '$lib/session.svelte';

// The document says that it is ready when nothing is pending: tests wait for that, not for a time.
await Promise.all([i18n.start(), session.start(), during(document.fonts.ready)]);
mount(App, { target: document.getElementById('app')! });
started();
