// Package data turns source files into immutable dataset versions: checked against a contract, profiled, kept as an
// Iceberg snapshot of encrypted Parquet, with the rows that broke the contract put aside to be looked at. Its engine
// (duckdb) and its tables (iceberg) are drivers beneath it.
package data
