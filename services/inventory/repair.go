package inventory

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
)

// repairer reserves and releases for who has found out that it should be so, where the saga did not get that far or was
// undone.
type repairer struct {
	db    *pgxpool.Pool
	relay *outbox.Relay // nil: events wait in the outbox
}

// verdict is why a command changed nothing, if it did not.
type verdict struct {
	changed string // the status that there is, which is not what was seen
	refusal string // why it cannot be
}

// reserve takes the items for an order that should have them, whatever became of its own attempt. Nobody but search is
// told: for payment it would be a new order. Before it is refused for want of units, they are counted anew under their
// products' locks: an order that is paid must not be given up for units that a lost reservation counts as held.
func (r *repairer) reserve(ctx context.Context, order uuid.UUID, seen string, lines []Line) (facts.Fact, verdict, error) {
	var products []string
	for _, l := range lines {
		products = append(products, l.ProductID)
	}
	defer r.relay.Wake() // a recount tells of its product
	return r.change(ctx, order, seen, Reserved, func(tx pgx.Tx) (*unitOfWork, error) {
		return lockForReserve(ctx, tx, []uuid.UUID{order}, products)
	}, func(tx pgx.Tx, b *unitOfWork) (_ []saga.Out, shortage string, err error) {
		if shortage = b.reserveAgain(order, lines); shortage == "" {
			return nil, "", nil
		}
		for _, id := range distinct(products) {
			p, _, ok, _, err := recountLocked(ctx, tx, id)
			if err != nil {
				return nil, "", err
			}
			if ok {
				b.available[id] = p.Available
			}
		}
		return nil, b.reserveAgain(order, lines), nil
	})
}

// release gives back what an order holds that should hold nothing, and tells of it, unless it is an orphan: whom order
// does not know, it can be told nothing of.
func (r *repairer) release(ctx context.Context, order uuid.UUID, seen string, orphan bool) (facts.Fact, verdict, error) {
	return r.change(ctx, order, seen, Released, func(tx pgx.Tx) (*unitOfWork, error) {
		return lockForRelease(ctx, tx, []uuid.UUID{order})
	}, func(_ pgx.Tx, b *unitOfWork) ([]saga.Out, string, error) {
		b.release(order)
		if orphan {
			return nil, "", nil
		}
		return []saga.Out{saga.New(ctx, event.InventoryReleased, order.String(), event.InventoryReleasedV1{OrderID: order})}, "", nil
	})
}

// change locks, has apply change the books unless the order's status is what is wanted already or not what was seen,
// and writes them with what is to be told. Where another adds the reservation between the look and the insert, it looks
// again.
func (r *repairer) change(ctx context.Context, order uuid.UUID, seen string, want Status, load func(pgx.Tx) (*unitOfWork, error),
	apply func(pgx.Tx, *unitOfWork) ([]saga.Out, string, error),
) (facts.Fact, verdict, error) {
	for {
		f, v, err := r.attempt(ctx, order, seen, want, load, apply)
		switch {
		case err == nil:
			return f, v, nil
		case !pg.Violates(err, "reservations_pkey"): // there was none to lock, and then there was
			return facts.Fact{}, verdict{}, fmt.Errorf("repair the reservation of order %s: %w", order, err)
		}
	}
}

func (r *repairer) attempt(ctx context.Context, order uuid.UUID, seen string, want Status, load func(pgx.Tx) (*unitOfWork, error),
	apply func(pgx.Tx, *unitOfWork) ([]saga.Out, string, error),
) (f facts.Fact, v verdict, err error) {
	var handover *outbox.Handover
	err = pg.InTx(ctx, r.db, func(tx pgx.Tx) error {
		b, err := load(tx)
		if err != nil {
			return err
		}
		is := facts.None
		if known, ok := b.reservations[order]; ok {
			is = string(known.Status)
		}
		switch {
		case is == string(want):
			f, err = source.Of(ctx, tx, order)
			return err
		case is != seen:
			v.changed = is
			return nil
		}
		outs, refusal, err := apply(tx, b)
		if err != nil || refusal != "" {
			v.refusal = refusal
			return err
		}
		updates, err := b.raiseVersions(ctx, tx)
		if err != nil {
			return err
		}
		for _, id := range b.changedAvailability() {
			outs = append(outs, saga.New(ctx, event.ProductUpdated, id, updates[id]))
		}
		if err := save(ctx, tx, b); err != nil {
			return err
		}
		var batch pgx.Batch
		if handover, err = saga.Queue(&batch, r.relay, "inventory", outs...); err != nil {
			return err
		}
		if err := pg.Defer(ctx, tx, &batch); err != nil {
			return err
		}
		f, err = source.Of(ctx, tx, order)
		return err
	})
	handover.Done(err == nil)
	return f, v, err
}

// doubt is why a recount changes nothing, if something keeps it: the problem's type, title and detail.
type doubt struct{ typ, title, detail string }

// recount makes a product's units what its movements and the reservations say. It changes nothing where they are that
// already, or where the evidence is in doubt; ok is false where there is no such product, or its row is lost. It reads
// all reservations.
func (r *repairer) recount(ctx context.Context, id string) (p Product, d doubt, ok bool, err error) {
	changed := false
	err = pg.InTx(ctx, r.db, func(tx pgx.Tx) error {
		p, d, ok, changed, err = recountLocked(ctx, tx, id)
		return err
	})
	if err != nil {
		return Product{}, doubt{}, false, fmt.Errorf("recount product %s: %w", id, err)
	}
	if changed {
		r.relay.Wake()
	}
	return p, d, ok, nil
}

// recountLocked is recount in a transaction, which holds the product's lock from then on. A count on the shelf can
// leave less than orders hold, so that is believed where the product's row says it, too; where only the reservations
// do, it may be them that are damaged.
func recountLocked(ctx context.Context, tx pgx.Tx, id string) (p Product, d doubt, ok, changed bool, err error) {
	if p, ok, err = one[Product](ctx, tx, lockProductSQL, id); err != nil {
		return p, d, false, false, err
	}
	var held int64
	if err := tx.QueryRow(ctx, heldUnitsSQL, id).Scan(&held); err != nil {
		return p, d, ok, false, err
	}
	if !ok {
		if _, moved, err := one[Movement](ctx, tx, firstMovementSQL, id); err != nil || held == 0 && !moved {
			return p, d, false, false, err
		}
		return p, doubt{typeProductMissing, "Product missing",
			fmt.Sprintf("the row of %s is lost, and orders hold %d units: put it again with all units that are there, those that orders hold too, and count anew", id, held)}, false, false, nil
	}
	e, _, err := one[evidence](ctx, tx, evidenceSQL, id)
	if err != nil {
		return p, d, true, false, err
	}
	stock, sure := e.stock(p.Stock)
	switch {
	case !sure:
		return p, doubt{"movements-broken", "Movements missing or changed",
			fmt.Sprintf("the movements of %s do not show what is on the shelf; a movement that counts it does", id)}, true, false, nil
	case held > stock && held != p.Reserved:
		return p, doubt{"stock-below-reserved", "Stock below what is reserved",
			fmt.Sprintf("orders hold %d units of %s, more than the %d that its movements make", held, id, stock)}, true, false, nil
	case stock == p.Stock && held == p.Reserved && stock-held == p.Available && e.N == e.Counted:
		return p, d, true, false, nil
	}
	if p, changed, err = one[Product](ctx, tx, recountProductSQL, id, stock, held, e.N); err != nil {
		return p, d, true, false, err
	}
	return p, d, true, changed, emitUpdated(ctx, tx, p)
}
