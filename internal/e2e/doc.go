// Package e2e holds the end-to-end tests: the real binary on loopback with a fresh data directory, driven as a user drives it.
// They hold what no single room can promise: bad input and faults leave nothing half-done, and kill -9 loses nothing acknowledged.
package e2e
