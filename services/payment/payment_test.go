package payment

import (
	"math"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/event"
)

func TestRule(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		rule   Rule
		user   string
		amount int64
		want   string
	}{
		{"no rule", Rule{}, "u-1", math.MaxInt64, ""},
		{"below the limit", Rule{Above: 1000}, "u-1", 999, ""},
		{"at the limit", Rule{Above: 1000}, "u-1", 1000, ""},
		{"above the limit", Rule{Above: 1000}, "u-1", 1001, "amount 1001 is above the limit of 1000"},
		{"a named user", Rule{Users: []string{"eve", "mallory"}}, "mallory", 1, "user mallory is declined"},
		{"another user", Rule{Users: []string{"eve", "mallory"}}, "mallory2", 1, ""},
		{"both", Rule{Above: 1000, Users: []string{"mallory"}}, "mallory", 1001, "user mallory is declined"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			id := uuid.New()
			want := Payment{OrderID: order(1), ID: id, UserID: tt.user, Amount: tt.amount, Currency: "EUR", Status: Completed}
			if tt.want != "" {
				want.Status, want.Reason, want.ReasonCode = Failed, tt.want, event.CodeDeclined
				want.ReasonParameters = event.Parameters{"amount": strconv.FormatInt(tt.amount, 10), "limit": "1000"}
				if tt.user == "mallory" {
					want.ReasonParameters = event.Parameters{"userId": "mallory"}
				}
			}
			got := tt.rule.attempt(id, event.InventoryReservedV1{OrderID: order(1), UserID: tt.user, Amount: tt.amount, Currency: "EUR"})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
