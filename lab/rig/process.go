package rig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 10 * time.Second // what a service promises
)

// Process is one instance of a service. Its methods are for one goroutine at a time.
type Process struct {
	Service string
	Addr    string
	Pprof   string // where it serves its profiles, if it does
	Log     string // path of what it wrote, at all its starts

	command []string
	env     []string
	cmd     *exec.Cmd
	exited  chan struct{}
}

// Build compiles commands of services/cmd and lab/cmd into dir, with further flags for the compiler.
func Build(ctx context.Context, dir string, commands []string, flags ...string) error {
	return BuildIn(ctx, "", dir, commands, flags...)
}

// BuildIn does the same with the source that lies at root; empty: where this process runs.
func BuildIn(ctx context.Context, root, dir string, commands []string, flags ...string) error {
	args := append([]string{"build", "-o", dir + string(filepath.Separator)}, flags...)
	for _, name := range commands {
		args = append(args, "github.com/converge-dev/converge/"+module(root, name)+"/cmd/"+name)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", strings.Join(commands, ", "), err, out)
	}
	return nil
}

// module is where a command's source lies. Earlier versions, which have no lab, keep all commands in one place.
func module(root, command string) string {
	if !slices.Contains([]string{"bench", "compare", "soak"}, command) {
		return "services"
	}
	if root != "" {
		if _, err := os.Stat(filepath.Join(root, "lab")); errors.Is(err, fs.ErrNotExist) {
			return "services"
		}
	}
	return "lab"
}

// Launch is how to start services.
type Launch struct {
	Services   []string
	Command    func(service string) []string // program and arguments
	Instances  int                           // of each service
	First      int                           // number of the first, which names its log and its instance
	Brokers    string
	Partitions int
	Databases  map[string]string   // URL by service
	Env        map[string][]string // further environment by service, as NAME=value
	Logs       string              // directory
	Profile    bool                // serve Go's profiles
}

// Start starts every instance and waits until all are ready. What was started has to be stopped even after an error.
func (l Launch) Start(ctx context.Context) ([]*Process, error) {
	var all []*Process
	for _, service := range l.Services {
		for i := range l.Instances {
			p, err := l.One(service, l.First+i)
			if err != nil {
				return all, err
			}
			all = append(all, p)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, p := range all {
		if err := p.AwaitReady(ctx); err != nil {
			return all, err
		}
	}
	return all, nil
}

// One starts the i-th instance of a service.
func (l Launch) One(service string, i int) (*Process, error) {
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	prefix := strings.ToUpper(service)
	p := &Process{
		Service: service, Addr: addr, Log: filepath.Join(l.Logs, service+"-"+strconv.Itoa(i)+".log"), command: l.Command(service),
		env: append([]string{
			prefix + "_ADDR=" + addr, prefix + "_DATABASE_URL=" + l.Databases[service],
			"KAFKA_BROKERS=" + l.Brokers, "KAFKA_PARTITIONS=" + strconv.Itoa(l.Partitions), "LOG_LEVEL=warn",
			// The same at each start, so that it gets its partitions back at once.
			"KAFKA_INSTANCE_ID=" + service + "-" + strconv.Itoa(i),
		}, l.Env[service]...),
	}
	if l.Profile {
		if p.Pprof, err = FreeAddr(); err != nil {
			return nil, err
		}
		p.env = append(p.env, prefix+"_PPROF_ADDR="+p.Pprof)
	}
	if err := os.WriteFile(p.Log, nil, 0o644); err != nil {
		return nil, err
	}
	return p, p.Start()
}

// Start starts the process once more after it has ended, at the same address, with further environment.
func (p *Process) Start(env ...string) error {
	log, err := os.OpenFile(p.Log, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer log.Close()                                   //nolint:errcheck // the process has a descriptor of its own
	cmd := exec.Command(p.command[0], p.command[1:]...) //nolint:noctx // it is stopped by a signal, and may finish what it has begun
	cmd.Env = append(append(os.Environ(), p.env...), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is the rig's, which stops them in order
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Service, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited = cmd, exited
	go func() { // ends with the process
		_ = cmd.Wait() // its state tells
		close(exited)
	}()
	return nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal, such as SIGSTOP and SIGCONT. A process that has ended does not mind.
func (p *Process) Signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// Kill ends the process as a crash does, with SIGKILL, and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.exited
}

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// AwaitReady waits until the service says that it is ready.
func (p *Process) AwaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := app.Healthcheck(ctx, p.Addr)
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended at its start: %s\n%s", p.Service, p.cmd.ProcessState, p.LogTail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.Service, err, p.LogTail())
		case <-tick.C:
		}
	}
}

// Alive returns an error if an instance has ended by itself.
func Alive(all []*Process) error {
	for _, p := range all {
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended during the run: %s\n%s", p.Service, p.cmd.ProcessState, p.LogTail())
		default:
		}
	}
	return nil
}

// Stop ends all instances gracefully and returns how long the slowest took. Taking longer than promised, or ending
// with an error, is an error.
func Stop(all []*Process) (time.Duration, error) {
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
			errs = append(errs, fmt.Errorf("%s did not stop well within %s: %s\n%s", p.Service, stopTimeout, p.cmd.ProcessState, p.LogTail()))
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

// LogTail is the end of what the process wrote.
func (p *Process) LogTail() string {
	b, _ := os.ReadFile(p.Log)
	return string(b[max(0, len(b)-4096):])
}
