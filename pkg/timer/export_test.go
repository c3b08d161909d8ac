package timer

import "context"

// Look looks once, as the runner does when it is idle, and tells whether something fired or was due.
func (r *Runner) Look(ctx context.Context) (fired bool, err error) {
	wait, err := r.look(ctx)
	return wait < r.cfg.Poll, err
}
