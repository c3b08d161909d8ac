package measure

import (
	"regexp"
	"strconv"
	"strings"
)

// Function is one line of a profile.
type Function struct {
	Name  string  `json:"name"`
	OwnMS float64 `json:"ownMs"`
	Own   float64 `json:"ownPercent"`
	Total float64 `json:"totalPercent"` // with what it called
}

const topFunctions = 15

// functionLine is a line of `go tool pprof -top -unit=ms`: flat, flat%, sum%, cum, cum%, name.
var functionLine = regexp.MustCompile(`^\s*([\d.]+)(?:ms)?\s+([\d.]+)%\s+[\d.]+%\s+[\d.]+(?:ms)?\s+([\d.]+)%\s+(.+?)(?: \((?:partial-)?inline\))?$`)

// functions reads what pprof printed.
func functions(top string) []Function {
	var out []Function
	for line := range strings.Lines(top) {
		m := functionLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			continue
		}
		f := Function{Name: m[4]}
		f.OwnMS, _ = strconv.ParseFloat(m[1], 64) // the expression allows numbers only
		f.Own, _ = strconv.ParseFloat(m[2], 64)
		f.Total, _ = strconv.ParseFloat(m[3], 64)
		out = append(out, f)
	}
	return out
}

// What CPU time goes to.
const (
	ofCalls   = "system calls"
	ofSched   = "scheduling"
	ofGC      = "garbage collection"
	ofAlloc   = "allocation"
	ofRuntime = "rest of the runtime"
	ofStd     = "standard library"
	ofOthers  = "libraries"
	ofOwn     = "own code"
)

// Causes are what CPU time goes to, in the order of the tables.
var Causes = [...]string{ofCalls, ofSched, ofGC, ofAlloc, ofRuntime, ofStd, ofOthers, ofOwn}

var (
	gcNames    = regexp.MustCompile(`^runtime\.(\(\*(gcWork|gcControllerState|sweep\w*|lfstack)\)|gc|bgsweep|sweep|scan|grey|mark|tryDeferToSpan|wbBuf|findObject|spanOf|getempty|typePointers|\(\*?typePointers\)|\(\*mspan\)\.(markBits|sweep|typePointers|heapBits))`)
	allocNames = regexp.MustCompile(`^runtime\.(mallocgc|newobject|makeslice|growslice|nextFreeFast|memclr|\(\*(mcache|mcentral|mheap|pageAlloc|fixalloc)\)|publicationBarrier|heapSetType|rawbyteslice|rawstring|\(\*mspan\)\.(nextFreeIndex|init|writeHeapBits))`)
	schedNames = regexp.MustCompile(`^runtime\.(futex|schedule|findRunnable|park|gopark|goready|ready|mcall|gosched|gogo|runq|steal|checkTimers|\(\*timer|netpoll|notesleep|notewakeup|notetsleep|startm|stopm|wakep|lock2|unlock2|execute|casgstatus|selectgo|chansend|chanrecv|send|recv|sema|pidle|mPark|osyield|procyield|usleep|injectglist|globrunq|resetspinning|exitsyscall|entersyscall|reentersyscall|acquirep|releasep|handoffp|retake|sysmon|nanotime|\(\*randomOrder|\(\*randomEnum)`)
)

// cause tells by a function's name what its own time went to.
func cause(name string) string {
	first, _, _ := strings.Cut(name, "/")
	switch {
	case strings.HasPrefix(name, "internal/runtime/syscall"), strings.HasPrefix(name, "syscall."):
		return ofCalls
	case gcNames.MatchString(name):
		return ofGC
	case allocNames.MatchString(name):
		return ofAlloc
	case schedNames.MatchString(name):
		return ofSched
	case strings.HasPrefix(name, "runtime"), strings.HasPrefix(name, "internal/"), strings.HasPrefix(name, "aeshash"), strings.HasPrefix(name, "memeqbody"), strings.HasPrefix(name, "cmpbody"):
		return ofRuntime
	case strings.HasPrefix(name, "github.com/converge-dev/"), strings.HasPrefix(name, "main."):
		return ofOwn
	case strings.Contains(first, ".") && strings.Contains(name, "/"):
		return ofOthers
	}
	return ofStd
}

// shares sums up the functions' own time by cause, in per cent.
func shares(all []Function) map[string]float64 {
	out, sum := map[string]float64{}, 0.0
	for _, f := range all {
		out[cause(f.Name)] += f.OwnMS
		sum += f.OwnMS
	}
	for name := range out {
		out[name] *= 100 / sum
	}
	return out
}
