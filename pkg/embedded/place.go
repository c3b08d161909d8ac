package embedded

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// Where root keeps what the unprivileged user must reach; root's own home and cache are often closed to others.
const (
	rootData  = "/var/lib/converge"
	rootCache = "/var/cache/converge"
)

// place is where a server lives and who it runs as.
type place struct {
	dir        string
	cache      string              // holds the server's binaries
	credential *syscall.Credential // nil: this process's own
}

// preparePlace makes the directories that a server needs, owned by the user that it will run as.
func preparePlace(cfg PostgresConfig, log *slog.Logger) (*place, error) {
	p := &place{cache: cfg.Cache}
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		var err error
		if uid, gid, err = unprivileged(); err != nil {
			return nil, err
		}
		p.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		p.cache = cmp.Or(p.cache, rootCache)
	}
	if p.cache == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		p.cache = filepath.Join(cache, "converge")
	}
	if err := p.makeDir(cfg.Dir, log); err != nil {
		return nil, err
	}
	// What another user's server left behind is an error here, not a puzzle later.
	if info, err := os.Stat(filepath.Join(p.dir, "data")); err == nil {
		if owner := int(info.Sys().(*syscall.Stat_t).Uid); owner != uid {
			return nil, fmt.Errorf("the data in %s belongs to user %d, but the server would run as user %d: "+
				"start it as the user that made it, or remove it", p.dir, owner, uid)
		}
	}
	if err := os.MkdirAll(p.cache, 0o755); err != nil {
		return nil, err
	}
	if p.credential != nil {
		for _, dir := range []string{p.dir, p.cache} {
			if err := os.Chown(dir, uid, gid); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// makeDir makes the server's directory: dir, or a temporary one, or for root one that its server can reach.
func (p *place) makeDir(dir string, log *slog.Logger) (err error) {
	if dir == "" {
		base := ""
		if p.credential != nil {
			base = "/tmp" // root's TMPDIR may be its own
		}
		p.dir, err = os.MkdirTemp(base, "converge-postgres-")
		return err
	}
	if p.dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p.dir), 0o755); err != nil {
		return err
	}
	if p.credential != nil {
		if p.dir, err = reachable(p.dir, log); err != nil {
			return err
		}
	}
	if err := os.Mkdir(p.dir, 0o700); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// unprivileged is the user a server runs as when this process is root.
func unprivileged() (uid, gid int, err error) {
	u, err := user.Lookup("nobody")
	if err != nil {
		return 0, 0, fmt.Errorf("PostgreSQL does not run as root, and there is no user to run it as: %w", err)
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

// reachable returns dir, or, where a directory above it is closed to other users, one that is not, and makes dir a link
// to it. Removing the link forgets the data: without it the other directory starts anew.
func reachable(dir string, log *slog.Logger) (string, error) {
	closed := ""
	for up := filepath.Dir(dir); up != filepath.Dir(up); up = filepath.Dir(up) {
		info, err := os.Stat(up)
		if err != nil {
			return "", err
		}
		if info.Mode().Perm()&0o001 == 0 {
			closed = up
		}
	}
	if closed == "" {
		return dir, nil
	}

	other := filepath.Join(rootData, fmt.Sprintf("%x", sha256.Sum256([]byte(dir)))[:12])
	if link, err := os.Readlink(dir); err != nil || link != other {
		if err := os.RemoveAll(other); err != nil {
			return "", err
		}
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) { // fails if there is something in it
			return "", err
		}
		if err := os.Symlink(other, dir); err != nil {
			return "", err
		}
		log.Info("PostgreSQL does not run as root, and its data must be where another user may go", "closed", closed, "data", other)
	}
	return other, os.MkdirAll(rootData, 0o755)
}
