package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/converge-dev/converge/pkg/app"
)

// serviceNames lists the services in the order in which an order meets them.
var serviceNames = [...]string{"order", "inventory", "payment"}

func serviceIndex(name string) int { return slices.Index(serviceNames[:], name) }

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 10 * time.Second // what a service promises
)

// process is one instance of a service.
type process struct {
	service string
	addr    string
	pprof   string // where it serves its profiles, if it does
	cmd     *exec.Cmd
	log     string // path of what it wrote
	exited  chan struct{}
}

// build compiles the services' binaries into dir.
func build(ctx context.Context, dir string) error {
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	for _, name := range serviceNames {
		args = append(args, "github.com/converge-dev/converge/services/cmd/"+name)
	}
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build the services: %w\n%s", err, out)
	}
	return nil
}

// launch is how to start the services.
type launch struct {
	command   func(service string) []string // program and arguments
	instances int                           // of each service
	brokers   string
	databases map[string]string // URL by service
	logs      string            // directory
	profile   bool              // serve Go's profiles
}

// start starts every instance and waits until all are ready. What was started has to be stopped even after an error.
func (l launch) start(ctx context.Context) ([]*process, error) {
	var all []*process
	for _, service := range serviceNames {
		for i := range l.instances {
			p, err := l.startOne(service, i)
			if err != nil {
				return all, err
			}
			all = append(all, p)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, p := range all {
		if err := p.awaitReady(ctx); err != nil {
			return all, err
		}
	}
	return all, nil
}

func (l launch) startOne(service string, i int) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	logPath := filepath.Join(l.logs, service+"-"+strconv.Itoa(i)+".log")
	logFile, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer logFile.Close() //nolint:errcheck // the process has a descriptor of its own
	command := l.command(service)
	cmd := exec.Command(command[0], command[1:]...) //nolint:noctx // it is stopped by a signal, and may finish what it has begun
	prefix := strings.ToUpper(service)
	cmd.Env = append(os.Environ(),
		prefix+"_ADDR="+addr, prefix+"_DATABASE_URL="+l.databases[service],
		"KAFKA_BROKERS="+l.brokers, "KAFKA_PARTITIONS="+strconv.Itoa(partitions), "LOG_LEVEL=warn")
	var pprof string
	if l.profile {
		if pprof, err = freeAddr(); err != nil {
			return nil, err
		}
		cmd.Env = append(cmd.Env, prefix+"_PPROF_ADDR="+pprof)
	}
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is the bench's, which stops them in order
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", service, err)
	}
	p := &process{service: service, addr: addr, pprof: pprof, cmd: cmd, log: logPath, exited: make(chan struct{})}
	go func() { // ends with the process
		_ = cmd.Wait() // its state tells
		close(p.exited)
	}()
	return p, nil
}

func (p *process) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := app.Healthcheck(ctx, p.addr)
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended at its start: %s\n%s", p.service, p.cmd.ProcessState, p.logTail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.service, err, p.logTail())
		case <-tick.C:
		}
	}
}

// alive returns an error if an instance has ended by itself.
func alive(all []*process) error {
	for _, p := range all {
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended during the run: %s\n%s", p.service, p.cmd.ProcessState, p.logTail())
		default:
		}
	}
	return nil
}

// stop ends all instances gracefully and returns how long the slowest took. Taking longer than promised, or ending
// with an error, is an error.
func stop(all []*process) (time.Duration, error) {
	began := time.Now()
	for _, p := range all {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	}
	deadline := time.After(stopTimeout + 2*time.Second)
	var slowest time.Duration
	var errs []error
	for _, p := range all {
		select {
		case <-p.exited:
		case <-deadline:
			deadline = closed()
			_ = p.cmd.Process.Kill()
			<-p.exited
		}
		slowest = max(slowest, time.Since(began))
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			errs = append(errs, fmt.Errorf("%s did not stop well within %s: %s\n%s", p.service, stopTimeout, p.cmd.ProcessState, p.logTail()))
		}
	}
	if slowest > stopTimeout {
		errs = append(errs, fmt.Errorf("the services took %.1f s to stop; they promise %s", slowest.Seconds(), stopTimeout))
	}
	return slowest, errors.Join(errs...)
}

// closed is a deadline that has passed.
func closed() <-chan time.Time {
	ch := make(chan time.Time)
	close(ch)
	return ch
}

func (p *process) logTail() string {
	b, _ := os.ReadFile(p.log)
	return string(b[max(0, len(b)-4096):])
}
