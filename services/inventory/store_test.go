package inventory

import (
	"testing"

	"github.com/converge-dev/converge/testkit/pgtest"
)

func TestStatementsFitTheSchema(t *testing.T) {
	t.Parallel()
	pgtest.Prepare(t, setup(t).db)
}
