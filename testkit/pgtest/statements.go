package pgtest

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Prepare has the database prepare every statement of the package under test: each constant whose name ends in SQL,
// wherever it is declared, so that none can be forgotten. A statement that does not fit the schema fails the test, by
// name.
func Prepare(t testing.TB, db *pgxpool.Pool) {
	t.Helper()
	conn, err := db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	statements := sqlConstants(t)
	if len(statements) == 0 {
		t.Fatal("the package has no constant whose name ends in SQL")
	}
	for name, sql := range statements {
		if _, err := conn.Conn().Prepare(t.Context(), name, sql); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// sqlConstants evaluates the constants of the package in the current directory, in which go test runs its tests.
func sqlConstants(t testing.TB) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	// Imports are not resolved, and the errors that follow do not matter: constants do not depend on them.
	conf := types.Config{Error: func(error) {}}
	pkg, _ := conf.Check("statements", fset, files, nil)
	statements := map[string]string{}
	for _, name := range pkg.Scope().Names() {
		if c, ok := pkg.Scope().Lookup(name).(*types.Const); ok && strings.HasSuffix(name, "SQL") {
			statements[name] = constant.StringVal(c.Val())
		}
	}
	return statements
}
