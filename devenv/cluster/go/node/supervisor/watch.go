package supervisor

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/miekg/dns"
)

// applyObjects tries until every object is there. At the first start some collections are a moment late.
func applyObjects(s Settings, client *http.Client, b *board, stop <-chan struct{}) {
	for _, o := range append(objects(s), simulatedObjects(s)...) {
		for apply(client, s.server(), o) != nil {
			if !pause(stop, 50*time.Millisecond) {
				return
			}
		}
	}
	for removeSimulated(s, client) != nil {
		if !pause(stop, 50*time.Millisecond) {
			return
		}
	}
	b.update(func(k *Status) { k.Objects = true })
}

type node struct {
	Status struct {
		Conditions []struct {
			Type              string    `json:"type"`
			Status            string    `json:"status"`
			LastHeartbeatTime time.Time `json:"lastHeartbeatTime"`
		} `json:"conditions"`
	} `json:"status"`
}

// ready counts only what the kubelet said since `began`: the node of before may still be stored as Ready.
func (n node) ready(began time.Time) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True" && !c.LastHeartbeatTime.Before(began.Truncate(time.Second))
		}
	}
	return false
}

// watchNode follows the node's Ready condition.
func watchNode(s Settings, client *http.Client, b *board, began time.Time, stop <-chan struct{}) {
	query := url.Values{"watch": {"true"}, "fieldSelector": {"metadata.name=" + s.Node()}}
	address := s.server() + "/api/v1/nodes?" + query.Encode()
	for pause(stop, 50*time.Millisecond) {
		response, err := client.Get(address)
		if err != nil {
			continue
		}
		for events := json.NewDecoder(response.Body); ; {
			var event struct{ Object node }
			if events.Decode(&event) != nil {
				break
			}
			ready := event.Object.ready(began)
			b.mutex.Lock()
			same := b.status.NodeReady == ready
			b.mutex.Unlock()
			if !same {
				b.update(func(k *Status) { k.NodeReady = ready })
			}
		}
		response.Body.Close()
	}
}

// watchDNS asks the name server for the API server's name, as a pod would: often until it answers, then now and then.
func watchDNS(s Settings, b *board, stop <-chan struct{}) {
	client := &dns.Client{Timeout: time.Second}
	question := new(dns.Msg)
	question.SetQuestion("kubernetes.default.svc.cluster.local.", dns.TypeA)
	server := net.JoinHostPort(s.Network.Node.String(), "53")
	for every, last := 50*time.Millisecond, false; pause(stop, every); {
		answer, _, err := client.Exchange(question.Copy(), server)
		fine := err == nil && len(answer.Answer) > 0
		if fine != last {
			b.update(func(k *Status) { k.DNS = fine })
		}
		last = fine
		if every = 50 * time.Millisecond; fine {
			every = 30 * time.Second
		}
	}
}

// pause tells whether to go on.
func pause(stop <-chan struct{}, time_ time.Duration) bool {
	select {
	case <-stop:
		return false
	case <-time.After(time_):
		return true
	}
}

// say adds one line to the supervisor's own log.
func say(format string, values ...any) {
	fmt.Printf(time.Now().UTC().Format("2006-01-02T15:04:05.000Z ")+format+"\n", values...)
}
