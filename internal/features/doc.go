// Package features defines what a model is given and makes sure that training and serving are given the same.
// It holds feature views and services, point-in-time training sets, the online store and the parity check between the two.
package features
