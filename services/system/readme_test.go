package system_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/services/system"
)

// README shows the choreography as the routes declare it: `converge graph` prints what belongs there.
func TestGraphInREADME(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```mermaid\n")
	shown, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("README.md has no mermaid block")
	}
	lines := func(s string) []string { return strings.Split(s, "\n") }
	if diff := cmp.Diff(lines(saga.Mermaid(system.Choreography()...)), lines(shown)); diff != "" {
		t.Errorf("README.md shows another choreography (-routes +README.md):\n%s", diff)
	}
}

// README's service is the one that is compiled and tested.
func TestServiceInREADME(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../../pkg/app/loyalty_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, service, ok := strings.Cut(string(source), ")\n\n") // behind the imports
	if !ok || len(service) < 500 {
		t.Fatal("pkg/app/loyalty_test.go has no service")
	}
	if !strings.Contains(string(readme), "```go\n"+service+"```\n") {
		t.Error("README.md shows another service than pkg/app/loyalty_test.go")
	}
}
