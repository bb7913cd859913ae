// Package uitest drives falaj's pages in a real Chromium, for this folder's own tests on fixtures
// and for the end-to-end test on the real server. It waits on what the page says about itself
// (nothing pending), never on a time, and fails with what is missing instead of skipping.
package uitest
