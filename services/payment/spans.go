package payment

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/facts"
)

// auditor holds the ledger to its rules by closed spans of entries: see [facts.Spans], whose fields these are.
type auditor struct {
	db     *pgxpool.Pool
	reread time.Duration
	grace  time.Duration
	most   time.Duration
	small  int64
	width  int64
}

// paymentsTurn is how many payments an audit holds against the ledger again at least.
const paymentsTurn = 10_000

func newAuditor(db *pgxpool.Pool, reread time.Duration) *auditor {
	return &auditor{db: db, reread: reread, grace: facts.SpanGrace, most: facts.SpanMost, small: facts.SmallAudit, width: facts.SpanWidth}
}

// ledgerChanged is the kind of a closed span that is not what it was.
const ledgerChanged = "ledger-changed"

// audit returns what breaks the rules: see [facts.Spans.Audit].
func (a *auditor) audit(ctx context.Context, full bool) (found []facts.Breach, err error) {
	return a.spans().Audit(ctx, full)
}

func (a *auditor) spans() facts.Spans {
	return facts.Spans{
		DB: a.db, Rows: "entries", Changed: ledgerChanged, Sequence: "entries_n_seq", Digest: digestSpanSQL, Sum: sumEntries, Forget: forgetSums,
		Rules: a.rangeOf, New: a.unclosed, All: a.all,
		Reread: a.reread, Grace: a.grace, Most: a.most, Small: a.small, Width: a.width,
	}
}

// unclosed holds to the rules what has come since the closed spans, the payments whose turn it is, and all accounts.
func (a *auditor) unclosed(ctx context.Context, _, last int64) (found []facts.Breach, err error) {
	for _, step := range []func(context.Context) ([]facts.Breach, error){
		a.auditNew, func(ctx context.Context) ([]facts.Breach, error) { return a.walkPayments(ctx, last) }, a.accounts,
	} {
		some, err := step(ctx)
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	return found, nil
}

// accounts holds all accounts to what their names and first entries say of them.
func (a *auditor) accounts(ctx context.Context) ([]facts.Breach, error) {
	return facts.Audit(ctx, a.db, []facts.Rule{accountsRule})
}

// all holds everything to the rules.
func (a *auditor) all(ctx context.Context) ([]facts.Breach, error) {
	return facts.Audit(ctx, a.db, rules)
}

// sumEntries adds what entries sum up to.
func sumEntries(b *pgx.Batch, after, upto int64) {
	b.Queue(sumAccountsSQL, after, upto)
	b.Queue(sumTransfersSQL, after, upto)
	b.Queue(dropWholeSQL)
}

func forgetSums(b *pgx.Batch) {
	b.Queue(dropAccountsSQL)
	b.Queue(dropHalvesSQL)
}
