package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockPatience is how long a start waits for the last server in its directory, which may be about to end.
const lockPatience = 10 * time.Second

// lock takes an exclusive lock on a file, which ends when the file is closed or the process dies. It waits as long as
// patience and ctx allow.
func lock(ctx context.Context, path string, patience time.Duration) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = f.Close() // the error that ends this tells
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close() // the error that ends this tells
			return nil, fmt.Errorf("another process uses %s; stop it, or take another directory: %w", filepath.Dir(path), ctx.Err())
		case <-tick.C:
		}
	}
}
