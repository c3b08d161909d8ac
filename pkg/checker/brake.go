package checker

import (
	"fmt"
	"strings"
)

// Defaults of the brake, see [Config].
const (
	brakeShare = 0.01
	brakeFloor = 20
	maxRepairs = 200
)

// heldBack is what a repair says that the brake holds back.
const heldBack = "held back by the brake: nothing is repaired before somebody confirms it"

// The brake: a check repairs nothing where it finds more to repair than is likely to be broken, or where a database is
// not the one it was. Then it is more likely that the checker was given the wrong database, or an older copy of one,
// than that so much is wrong, and repairs would pay back and release what is right. It holds until somebody confirms
// ([Request.Confirm]).

// brake holds the check back if there are more repairs to be made than limit. They are of what the text names.
func (k *check) brake(due, limit int, what string) {
	if due > limit && !k.Confirm {
		k.hold(fmt.Sprintf("%d %s are to be repaired, and no more than %d are likely to be wrong", due, what, limit))
	}
}

// hold keeps the check from repairing anything from here on.
func (k *check) hold(reason string) {
	k.report.Braked = strings.TrimPrefix(k.report.Braked+"; "+reason, "; ")
}

// held tells whether nothing may be repaired.
func (k *check) held() bool { return !k.Repair || k.report.Braked != "" }

// brakeAudits holds the check back for what the services found with themselves. How much they looked at is not known:
// only so few are repaired unseen as in any system.
func (k *check) brakeAudits() {
	due := 0
	for _, f := range k.others {
		if f.Repair.Action == actionRecount && f.Repair.State == Planned {
			due++
		}
	}
	k.brake(due, k.cfg.BrakeFloor, "rules of the services' own that are broken")
}

// brakeOrders holds the check back for its orders.
func (k *check) brakeOrders() {
	k.brake(k.due, max(k.cfg.BrakeFloor, int(k.cfg.BrakeShare*float64(k.report.Checked))), fmt.Sprintf("of %d orders", k.report.Checked))
}

// sayHeld says at each repair that the brake holds back that it does.
func (k *check) sayHeld(found []Finding) {
	if k.report.Braked == "" {
		return
	}
	for i := range found {
		if r := &found[i].Repair; r.State == Planned && r.Detail == "" {
			r.Detail = heldBack
		}
	}
}
