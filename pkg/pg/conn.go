package pg

import (
	"cmp"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// A host that vanishes without a word, or a process that is frozen, must cost seconds, and not the 15 minutes to 2
// hours that TCP grants by itself: a consumer waits for its statement, and the server keeps the locks of a client that
// is gone.
const (
	// silence is how long the other side's machine may leave bytes unacknowledged, or a probe of an idle connection
	// unanswered, before the connection is given up. It is above what a lost packet or a live migration costs, and
	// leaves a caller that has 30 s (a consumer's transaction) time for a second try.
	silence = 10 * time.Second
	// A connection that is idle is probed after probeAfter, every probeEvery, and given up after probes without an
	// answer.
	probeAfter = 4 * time.Second
	probeEvery = 2 * time.Second
	probes     = 3
	// idleInTransaction is how long a client may hold a transaction open, and its locks, without asking anything. No
	// transaction of ours works for long between two statements; one that must says so with SET LOCAL.
	idleInTransaction = 10 * time.Second
	// pong is how long a connection from the pool that has rested may take to show that it lives.
	pong = 2 * time.Second
)

// bound makes both ends of each connection notice that the other is gone. Settings of the same name in the URL win.
func bound(c *pgxpool.Config) {
	params := c.ConnConfig.RuntimeParams
	for name, value := range map[string]string{
		"tcp_user_timeout":                    millis(silence),
		"tcp_keepalives_idle":                 strconv.Itoa(int(probeAfter.Seconds())),
		"tcp_keepalives_interval":             strconv.Itoa(int(probeEvery.Seconds())),
		"tcp_keepalives_count":                strconv.Itoa(probes),
		"idle_in_transaction_session_timeout": millis(idleInTransaction),
	} {
		params[name] = cmp.Or(params[name], value)
	}
	dialer := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: probeAfter, Interval: probeEvery, Count: probes},
		Control:         giveUpAfter(silence),
	}
	c.ConnConfig.DialFunc = dialer.DialContext
	c.PingTimeout = cmp.Or(c.PingTimeout, pong)
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
