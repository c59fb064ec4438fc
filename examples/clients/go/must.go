package main

import "log"

// must ends the program with the error; an example has nobody to hand it to.
func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
