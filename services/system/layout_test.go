package system

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// statement begins in a query, and in no other text.
var statement = regexp.MustCompile(`\b(SELECT|INSERT INTO|DELETE FROM|TRUNCATE|UPDATE [a-z_]+ (AS [a-z]+ )?\s*SET|LOCK TABLE)\b`)

// Who looks for a query of a service finds it in a file whose name begins with store.
func TestQueriesAreInTheStore(t *testing.T) {
	queries := 0
	for _, service := range []string{"order", "inventory", "payment", "profile", "search", "analytics"} {
		files, err := filepath.Glob(filepath.Join("..", service, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s has no files: %v", service, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, at := range statements(t, file) {
				queries++
				if !strings.HasPrefix(filepath.Base(file), "store") {
					t.Errorf("%s: a query; it belongs in a file of the service that is named store*.go", at)
				}
			}
		}
	}
	if queries < 100 {
		t.Errorf("%d queries were found in all services: this test no longer sees them", queries)
	}
}

// statements returns where a file's texts have SQL.
func statements(t *testing.T, file string) (found []token.Position) {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, file, source, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		lit, ok := n.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		if text, err := strconv.Unquote(lit.Value); err == nil && statement.MatchString(text) {
			found = append(found, set.Position(lit.Pos()))
		}
		return true
	})
	return found
}
