package cli_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/converge-dev/converge/services/cli"
)

// A check in which a part could not look says which, and is not a clean one.
func TestCheckThatIsBlind(t *testing.T) {
	t.Parallel()
	var asked string
	checker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = string(body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"checkId":"01980d2e-0000-7000-8000-000000000001","checked":7,"findings":[],"looked":["orders"],"failed":[{"part":"audit-payment","detail":"payment: 503"}]}`)
	}))
	t.Cleanup(checker.Close)
	out, _, err := terminal{T: t}.try("check", "-full", "-url", checker.URL)
	if !errors.Is(err, cli.ErrBlind) || !strings.Contains(out, "audit-payment could not look: payment: 503") || strings.Contains(out, "The services agree.") {
		t.Errorf("%v, says\n%s", err, out)
	}
	if !strings.Contains(asked, `"full":true`) {
		t.Errorf("asked for %s", asked)
	}
	if _, _, err := (terminal{T: t}).try("check", "-full", "-since", "2h", "-url", checker.URL); err == nil {
		t.Error("-full with -since is taken")
	}
}
