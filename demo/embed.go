// Package demo carries the demo project inside the binary, so that `falaj demo flights` works in a closed building.
// The files are the ones a user would have in Git; the data is not among them.
package demo

import "embed"

// Flights is the project in the folder "flights": falaj.yaml, SQL, the training script, its tests and its runtime.
//
//go:embed flights/README.md flights/STORY.md flights/falaj.yaml flights/train.py flights/measure.py
//go:embed flights/requirements.in flights/requirements.lock flights/sql/*.sql
//go:embed flights/tests/behaviour.yaml flights/tests/integration.py flights/tests/test_train.py flights/.gitignore
var Flights embed.FS
