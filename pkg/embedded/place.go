package embedded

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
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
	temporary  bool
	cache      string              // holds the server's binaries, shared by all servers of this user
	credential *syscall.Credential // nil: this process's own
}

// preparePlace makes the directories a server needs, owned by the user that it will run as.
func preparePlace(dir string, log *slog.Logger) (place, error) {
	if os.Geteuid() != 0 {
		cache, err := os.UserCacheDir()
		if err != nil {
			return place{}, err
		}
		p := place{dir: dir, temporary: dir == "", cache: filepath.Join(cache, "converge")}
		return p, p.create(os.Geteuid())
	}

	uid, gid, err := unprivileged()
	if err != nil {
		return place{}, err
	}
	p := place{
		dir: dir, temporary: dir == "", cache: rootCache,
		credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)},
	}
	if dir != "" {
		if p.dir, err = reachable(dir, log); err != nil {
			return place{}, err
		}
	}
	if err := p.create(uid); err != nil {
		return place{}, err
	}
	for _, d := range []string{p.dir, p.cache} {
		if err := os.Lchown(d, uid, gid); err != nil {
			return place{}, err
		}
	}
	return p, nil
}

// create makes the directories. One that another user's server left behind is an error here, not a puzzle later.
func (p *place) create(uid int) error {
	if err := os.MkdirAll(p.cache, 0o755); err != nil {
		return err
	}
	if p.temporary {
		base := os.TempDir()
		if p.credential != nil {
			base = "/tmp"
		}
		var err error
		p.dir, err = os.MkdirTemp(base, "converge-postgres-")
		return err
	}
	var err error
	if p.dir, err = filepath.Abs(p.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(filepath.Join(p.dir, "data"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if owner := int(info.Sys().(*syscall.Stat_t).Uid); owner != uid {
		return fmt.Errorf("the data in %s belongs to user %d, but the server would run as user %d: "+
			"start it as the user that made it, or remove it", p.dir, owner, uid)
	}
	return nil
}

// discard removes a temporary place whose server never ran.
func (p *place) discard() {
	if p.temporary {
		_ = os.RemoveAll(p.dir)
	}
}

// password is the superuser's. It is made up once per data directory, so that nobody else on this machine can guess it.
func (p *place) password() (string, error) {
	file := filepath.Join(p.dir, "password")
	b, err := os.ReadFile(file)
	if err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	password := newPassword()
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		return "", err
	}
	return password, nil
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

// reachable returns dir, or, where a directory above it is closed to other users, a directory that is not, leaving a link
// to it at dir. Removing the link forgets the data: without it the directory is emptied.
func reachable(dir string, log *slog.Logger) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	closed := ""
	for up := filepath.Dir(dir); ; up = filepath.Dir(up) {
		if info, err := os.Stat(up); err == nil && info.Mode().Perm()&0o001 == 0 {
			closed = up
		}
		if up == filepath.Dir(up) {
			break
		}
	}
	if closed == "" {
		return dir, nil
	}
	other := filepath.Join(rootData, fmt.Sprintf("%x", sha256.Sum256([]byte(dir)))[:12])
	if link, err := os.Readlink(dir); err == nil && link == other {
		return other, nil
	}
	if err := os.RemoveAll(other); err != nil {
		return "", err
	}
	// What stands at dir is an empty directory at most: with data of its own it is not ours to replace.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	if err := os.MkdirAll(other, 0o755); err != nil {
		return "", err
	}
	if err := os.Symlink(other, dir); err != nil {
		return "", err
	}
	log.Info("PostgreSQL does not run as root; its data is where another user may go", "data", other, "closed", closed)
	return other, nil
}

// platform names this machine as the cache does; the binaries differ by it.
func platform() string { return runtime.GOOS + "-" + runtime.GOARCH }
