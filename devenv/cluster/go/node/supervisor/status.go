package supervisor

import (
	"sync"
	"time"
)

// Status is the one file that tells the host how the cluster is. It is replaced as a whole whenever something changes.
type Status struct {
	Name       string            `json:"name"`
	Phase      string            `json:"phase"` // starting, ready, degraded, stopping
	Waiting    string            `json:"waiting"`
	Since      time.Time         `json:"since"`
	Version    string            `json:"version"`
	Server     string            `json:"server"`
	Node       string            `json:"node"`
	NodeReady  bool              `json:"node_ready"`
	DNS        bool              `json:"dns"`
	Objects    bool              `json:"objects"` // StorageClass, roles, the name server's Service
	Mended     []string          `json:"mended"`  // what this start had to make anew
	Components []Component       `json:"components"`
	Programs   map[string]string `json:"programs"`
	Simulated  int               `json:"simulated"`
}

// Component is one process of the cluster.
type Component struct {
	Name     string    `json:"name"`
	State    string    `json:"state"` // waiting, starting, running, crashed, stopped
	PID      int       `json:"pid"`   // inside; the host sees another number
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
	Exit     string    `json:"exit"` // how it ended last
	Log      string    `json:"log"`
}

// board holds the status for the goroutines that change it.
type board struct {
	mutex   sync.Mutex
	path    string
	status  Status
	changed chan struct{} // closed and made anew at each change
}

func newBoard(path string, first Status) *board {
	b := &board{path: path, status: first, changed: make(chan struct{})}
	b.update(func(*Status) {})
	return b
}

// update changes the status, judges it anew and writes it.
func (b *board) update(change func(*Status)) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	before := b.status.Phase
	change(&b.status)
	judge(&b.status)
	if b.status.Phase != before {
		b.status.Since = time.Now()
	}
	_ = writeJSON(b.path, b.status) // a full disk must not end the cluster
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *board) component(name string, change func(*Component)) {
	b.update(func(s *Status) {
		for i := range s.Components {
			if s.Components[i].Name == name {
				change(&s.Components[i])
			}
		}
	})
}

// await returns when the status is as wanted, or `stop` is closed.
func (b *board) await(stop <-chan struct{}, wanted func(Status) bool) bool {
	for {
		b.mutex.Lock()
		fine, changed := wanted(b.status), b.changed
		b.mutex.Unlock()
		if fine {
			return true
		}
		select {
		case <-changed:
		case <-stop:
			return false
		}
	}
}

// judge sets the phase and what is waited for, until the end is near.
func judge(s *Status) {
	if s.Phase == "stopping" {
		return
	}
	s.Waiting = waitsFor(*s)
	switch {
	case s.Waiting == "":
		s.Phase = "ready"
	case s.Phase == "ready":
		s.Phase = "degraded"
	}
}

// waitsFor is the first thing that is not as it should be, in the order in which things come up.
func waitsFor(s Status) string {
	for _, c := range s.Components {
		switch c.State {
		case "running":
		case "crashed":
			return c.Name + ", which ended (" + c.Exit + ") and is started again"
		case "starting":
			return c.Name + " to answer"
		}
	}
	switch {
	case !s.Objects:
		return "the StorageClass and the roles"
	case !s.NodeReady:
		return "the node to be Ready"
	case !s.DNS:
		return "the name server to answer"
	}
	for _, c := range s.Components {
		if c.State != "running" {
			return c.Name
		}
	}
	return ""
}

// running tells whether all the named components run.
func running(names ...string) func(Status) bool {
	return func(s Status) bool {
		missing := map[string]bool{}
		for _, name := range names {
			missing[name] = true
		}
		for _, c := range s.Components {
			if c.State == "running" {
				delete(missing, c.Name)
			}
		}
		return len(missing) == 0
	}
}
