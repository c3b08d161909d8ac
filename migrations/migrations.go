// Package migrations holds the schema of each service's database, as goose files. A service's database also has
// the tables of the building blocks it uses (outbox, inbox, idempotency), which bring their own.
package migrations

import (
	"embed"
	"io/fs"
)

//go:embed order inventory payment profile search analytics
var files embed.FS

// For returns the files of one service. It panics on a name that has no directory here.
func For(service string) fs.FS {
	if _, err := fs.Stat(files, service); err != nil {
		panic("migrations: no directory " + service)
	}
	sub, err := fs.Sub(files, service)
	if err != nil {
		panic(err) // not a valid path; the directory exists
	}
	return sub
}
