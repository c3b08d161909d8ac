package inventory

import (
	"testing"

	"github.com/converge-dev/converge/pkg/pgtest"
)

func TestStatementsFitTheSchema(t *testing.T) {
	t.Parallel()
	pgtest.Prepare(t, setup(t).db)
}
