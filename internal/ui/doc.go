// Package ui carries the built web pages inside the binary and serves them.
// The pages are ordinary clients of falaj's own API: nothing here knows a stage, and without a
// build (make ui) the handler says so instead of pretending.
package ui
