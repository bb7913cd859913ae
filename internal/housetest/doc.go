// Package housetest holds the rules of the whole repository as tests: what may import what, which words every package owes its
// reader, and what no file may contain. A rule that fails says why it exists; each is data in one place and has a test of its own eye.
package housetest
