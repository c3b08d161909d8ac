package saga_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// reviewV1 is how reviews are written today, and lie in the topic.
type reviewV1 struct {
	Stars int64  `json:"stars" saga:"required"`
	Name  string `json:"name"` // of the author
}

// reviewExpanded is version 1 while name is being renamed to author: both are written, and either is read.
type reviewExpanded struct {
	Stars  int64  `json:"stars" saga:"required"`
	Name   string `json:"name"`
	Author string `json:"author"`
}

// by is who wrote it, whichever of the fields tells.
func (r reviewExpanded) by() string {
	if r.Author == "" {
		return r.Name
	}
	return r.Author
}

// reviewV2 has only the new name.
type reviewV2 struct {
	Stars  int64  `json:"stars" saga:"required"`
	Author string `json:"author"`
}

func renamed(r reviewExpanded) (reviewV2, error) { return reviewV2{r.Stars, r.by()}, nil }

// How a field is renamed while services of several versions run, and old events stay readable: docs/evolve.md.
func ExampleUpcast() {
	before := saga.NewTopic[reviewV1]("review.written")
	expanded := saga.NewTopic[reviewExpanded]("review.written")
	contracted := saga.NewTopic[reviewV2]("review.written", saga.Upcast(1, renamed))

	t, done := pgtest.Example()
	defer done()
	db := pgtest.New(t, "example", sagatest.Migrate())
	written := func(out saga.Out) broker.Record { return sagatest.Record(t, out) }
	records := []broker.Record{
		written(saga.New(t.Context(), before, "1", reviewV1{5, "Ada"})),
		written(saga.New(t.Context(), expanded, "2", reviewExpanded{4, "Grace", "Grace"})),
		written(saga.New(t.Context(), contracted, "3", reviewV2{3, "Edsger"})),
	}
	sagatest.Deliver(t, db, saga.Service{Name: "reviews", Routes: []saga.Route{
		saga.On(contracted, func(_ context.Context, _ pgx.Tx, m saga.Msg[reviewV2]) ([]saga.Out, error) {
			fmt.Println(m.Data.Stars, m.Data.Author)
			return nil, nil
		}),
	}}, records...)
	for _, r := range records {
		fmt.Println(r.Header("ce_type"), string(r.Value))
	}
	// Output:
	// 5 Ada
	// 4 Grace
	// 3 Edsger
	// review.written {"stars":5,"name":"Ada"}
	// review.written {"stars":4,"name":"Grace","author":"Grace"}
	// review.written.v2 {"stars":3,"author":"Edsger"}
}
