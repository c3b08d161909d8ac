package payment

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func TestMain(m *testing.M) {
	time.Local = time.FixedZone("somewhere", 5*60*60) // the API's times are UTC wherever the service runs
	pgtest.Main(m)
}

// plenty is what users' accounts open with, unless a test says otherwise.
const plenty = 1_000_000_000

// bundle is a database with payment's schema, and what tests do with it.
type bundle struct {
	*testing.T
	db *pgxpool.Pool
	Config
}

func setup(t *testing.T) bundle {
	t.Helper()
	return bundle{t, pgtest.New(t, "payment", schema()), Config{Rule: Rule{Above: 1000, Users: []string{"mallory"}}, Opening: plenty}}
}

func schema() pgtest.Migrate {
	return sagatest.Migrate(idempotency.Migration(), pg.Migration{Name: "payment", FS: migrations.For("payment")})
}

// bank is the bundle's.
func (b bundle) bank() bank { return newCashier(b.Config).bank }

// deliver hands records to the service as one poll, and returns what it says then.
func (b bundle) deliver(records ...broker.Record) []broker.Record {
	b.Helper()
	return sagatest.Deliver(b.T, b.db, Choreography(b.Config), records...)
}

// told shows an event in one line, with the payment's id if it has one.
func told(t *testing.T, r broker.Record) string {
	t.Helper()
	switch r.Topic {
	case event.PaymentCompleted.Name():
		e := sagatest.Decode(t, event.PaymentCompleted, r)
		return fmt.Sprintf("%s: paid %d with %s", e.OrderID, e.Amount, e.PaymentID)
	case event.PaymentFailed.Name():
		e := sagatest.Decode(t, event.PaymentFailed, r)
		return fmt.Sprintf("%s: %s", e.OrderID, e.Error)
	case event.PaymentRefunded.Name():
		e := sagatest.Decode(t, event.PaymentRefunded, r)
		return fmt.Sprintf("%s: paid back %d of %s", e.OrderID, e.Amount, e.PaymentID)
	case event.PaymentRefundFailed.Name():
		e := sagatest.Decode(t, event.PaymentRefundFailed, r)
		return fmt.Sprintf("%s: not paid back: %s", e.OrderID, e.Error)
	default:
		return fmt.Sprintf("%s: %s", r.Topic, r.Header("dlq-reason"))
	}
}

func (b bundle) told(records ...broker.Record) []string {
	b.Helper()
	var lines []string
	for _, r := range records {
		lines = append(lines, told(b.T, r))
	}
	return lines
}

// order is the id of the n-th order.
func order(n int) uuid.UUID {
	return uuid.MustParse(fmt.Sprintf("01980d2e-0000-7000-8000-%012d", n))
}

// reserved is a new message, each time, that the n-th order's items are reserved.
func reserved(t *testing.T, n int, user string, amount int64) broker.Record {
	t.Helper()
	return sagatest.Record(t, saga.New(t.Context(), event.InventoryReserved, order(n).String(),
		event.InventoryReservedV1{OrderID: order(n), UserID: user, Amount: amount, Currency: "EUR"}))
}

// cancelled is a new message, each time, that the n-th order is to be undone.
func cancelled(t *testing.T, n int) broker.Record {
	t.Helper()
	return sagatest.Record(t, saga.New(t.Context(), event.OrderCancelRequested, order(n).String(),
		event.OrderCancelRequestedV1{OrderID: order(n), Reason: "changed my mind"}))
}

// payments reads every payment, by order.
func (b bundle) payments() map[uuid.UUID]Payment {
	b.Helper()
	rows, _ := b.db.Query(b.Context(), `SELECT order_id, id, user_id, amount, currency, status, reason, reason_code, reason_parameters FROM payments`)
	ps, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Payment])
	if err != nil {
		b.Fatal(err)
	}
	out := make(map[uuid.UUID]Payment, len(ps))
	for _, p := range ps {
		out[p.OrderID] = p
	}
	return out
}

// balance is what the account with this id holds.
func (b bundle) balance(account string) int64 {
	b.Helper()
	owner, currency, _ := strings.Cut(account, furtherMark)
	a, ok, err := findAccount(b.Context(), b.db, owner, currency)
	if err != nil || !ok {
		b.Fatalf("account %s: found %t, %v", account, ok, err)
	}
	return a.Balance
}

// freeze freezes or thaws an owner's accounts.
func (b bundle) freeze(account string, frozen bool) {
	b.Helper()
	if ok, err := freezeAccounts(b.Context(), b.db, account, "", frozen); err != nil || !ok {
		b.Fatalf("freeze %s: found %t, %v", account, ok, err)
	}
}

// audits are statements about the ledger that no row may answer, beyond the service's own rules.
var audits = map[string]string{
	"all entries sum to zero":                   `SELECT sum(amount)::text FROM entries HAVING sum(amount) <> 0`,
	"a transfer is two entries":                 `SELECT transfer_id || ': ' || count(*) || ' entries' FROM entries GROUP BY transfer_id HAVING count(*) <> 2`,
	"a currency's entries sum to zero":          `SELECT a.currency || ': ' || sum(e.amount) FROM entries e JOIN accounts a ON a.id = e.account_id GROUP BY a.currency HAVING sum(e.amount) <> 0`,
	"a transfer is in one currency":             `SELECT e.transfer_id::text FROM entries e JOIN accounts a ON a.id = e.account_id GROUP BY 1 HAVING count(DISTINCT a.currency) <> 1`,
	"what is pending has an account":            `SELECT account_id FROM pending WHERE account_id NOT IN (SELECT id FROM accounts)`,
	"no account but the system's is below zero": `SELECT id || ': ' || balance FROM accounts WHERE balance < 0 AND id !~ '^(external|suspense)[.]...$'`,
}

// audit holds the ledger to what must always be true of it.
func (b bundle) audit() {
	b.Helper()
	if found := b.breaches(); found != nil {
		b.Errorf("rules are broken: %v", found)
	}
	for what, sql := range audits {
		rows, _ := b.db.Query(b.Context(), sql)
		wrong, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(wrong) > 0 {
			b.Errorf("%s: not so: %v %v", what, wrong, err)
		}
	}
}

// breaches are what breaks the service's rules.
func (b bundle) breaches() (found []string) {
	b.Helper()
	all, err := facts.Audit(b.Context(), b.db, rules)
	if err != nil {
		b.Fatal(err)
	}
	for _, one := range all {
		found = append(found, one.Kind+" "+one.Subject+": "+one.Detail)
	}
	return found
}

// exec plants something.
func (b bundle) exec(sql string, args ...any) {
	b.Helper()
	if _, err := b.db.Exec(b.Context(), sql, args...); err != nil {
		b.Fatal(err)
	}
}

// everything is all that the service holds, as text.
func (b bundle) everything() (all string) {
	b.Helper()
	for _, table := range []string{"payments", "refunds", "accounts", "pending", "entries", "corrections", "outbox", "idempotency"} {
		var rows string
		if err := b.db.QueryRow(b.Context(), `SELECT coalesce(string_agg(t::text, E'\n' ORDER BY t::text), '') FROM `+table+` t`).Scan(&rows); err != nil {
			b.Fatal(err)
		}
		all += table + "\n" + rows + "\n"
	}
	return all
}

// sum is what accounts hold.
func (b bundle) sum(like string) (n int64) {
	b.Helper()
	err := b.db.QueryRow(b.Context(), `SELECT ((SELECT coalesce(sum(balance), 0) FROM accounts WHERE id LIKE $1) + (SELECT coalesce(sum(amount), 0) FROM pending WHERE account_id LIKE $1))::bigint`, like).Scan(&n)
	if err != nil {
		b.Fatal(err)
	}
	return n
}
