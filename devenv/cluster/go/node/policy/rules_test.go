package policy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
)

var town = world{
	namespaces: map[string]labels.Set{"a": {"team": "red"}, "b": {"team": "blue"}},
	pods: []pod{
		{"a", "server", "10.244.0.2", labels.Set{"app": "server"}, []core.ContainerPort{{Name: "web", ContainerPort: 8000}}},
		{"a", "friend", "10.244.0.3", labels.Set{"app": "friend"}, nil},
		{"b", "other", "10.244.0.4", labels.Set{"app": "friend"}, nil},
	},
}

func TestWhatAPolicyAllowsAsRules(t *testing.T) {
	for name, row := range map[string]struct {
		spec string
		want string // the rules of the chain in which it ends
	}{
		"nobody":           {`{"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]}`, "in_10_244_0_2:"},
		"everybody":        {`{"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": [{}]}`, "in_10_244_0_2: return"},
		"labels and name":  {`{"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": "web"}]}]}`, "in_10_244_0_2: ip saddr { 10.244.0.3 } tcp dport 8000 return"},
		"no such name":     {`{"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": "none"}]}]}`, "in_10_244_0_2:"},
		"other namespace":  {`{"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]}]}`, "in_10_244_0_2: ip saddr { 10.244.0.4 } return"},
		"both selectors":   {`{"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "friend"}}}]}]}`, "in_10_244_0_2: ip saddr { 10.244.0.3, 10.244.0.4 } return"},
		"nobody selected":  {`{"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "none"}}}]}]}`, "in_10_244_0_2:"},
		"block, range":     {`{"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"protocol": "UDP", "port": 1, "endPort": 9}]}]}`, "in_10_244_0_2: ip saddr 10.0.0.0/8 ip saddr != { 10.1.0.0/16 } udp dport 1-9 return"},
		"version 6":        {`{"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"ipBlock": {"cidr": "fd00::/8"}}]}]}`, "in_10_244_0_2:"},
		"egress by name":   {`{"podSelector": {"matchLabels": {"app": "friend"}}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": "web"}, {"port": 53, "protocol": "UDP"}]}]}`, "out_10_244_0_3: ip daddr 10.244.0.2 tcp dport 8000 return, udp dport 53 return"},
		"a protocol alone": {`{"podSelector": {"matchLabels": {"app": "friend"}}, "policyTypes": ["Egress"], "egress": [{"ports": [{"protocol": "SCTP"}]}]}`, "out_10_244_0_3: ip protocol sctp return"},
	} {
		policy := &networking.NetworkPolicy{}
		policy.Namespace = "a"
		if err := json.Unmarshal([]byte(row.spec), &policy.Spec); err != nil {
			t.Fatal(err)
		}
		w := town
		w.policies = []*networking.NetworkPolicy{policy}
		if got := chain(rules(w)); got != row.want {
			t.Errorf("%s: %q, not %q", name, got, row.want)
		}
	}
}

// chain is the first chain of a table: its name and its rules, without those that all chains have.
func chain(text string) string {
	_, rest, _ := strings.Cut(text, " chain ")
	name, rest, _ := strings.Cut(rest, " {\n")
	body, _, _ := strings.Cut(rest, "  reject")
	var kept []string
	for _, line := range strings.Split(strings.TrimSpace(body), "\n")[1:] {
		kept = append(kept, strings.TrimSpace(line))
	}
	return strings.TrimSpace(name + ": " + strings.Join(kept, ", "))
}

func TestWithoutAPolicyThereIsNoTable(t *testing.T) {
	if got := rules(town); got != "table ip devenv_policy\ndelete table ip devenv_policy\n" {
		t.Error(got)
	}
}

func TestAPodCountsWhileItHasAnAddressOfItsOwn(t *testing.T) {
	object := &core.Pod{}
	if _, ok := seen(object, ""); ok {
		t.Error("it has no address yet")
	}
	if p, ok := seen(object, "10.244.0.9"); !ok || p.address != "10.244.0.9" {
		t.Error("its address is known before the API knows it", p, ok)
	}
	object.Status.PodIP = "10.244.0.5"
	if p, ok := seen(object, ""); !ok || p.address != "10.244.0.5" {
		t.Error(p, ok)
	}
	object.Status.Phase = core.PodSucceeded
	if _, ok := seen(object, ""); ok {
		t.Error("another pod may have its address by now")
	}
	object.Status.Phase, object.Spec.HostNetwork = core.PodRunning, true
	if _, ok := seen(object, ""); ok {
		t.Error("its address is the node's")
	}
}

func TestAnAddressIsKnownFromWhatTheNetworkPluginsKeep(t *testing.T) {
	file := filepath.Join(t.TempDir(), "devenv-1-eth0")
	text := `{"cniArgs": [["K8S_POD_NAMESPACE", "a"], ["K8S_POD_NAME", "new"]], "result": {"ips": [{"address": "10.244.0.7/16"}]}}`
	found := map[string]string{}
	for _, part := range []string{text[:40], text} {
		if err := os.WriteFile(file, []byte(part), 0o600); err != nil {
			t.Fatal(err)
		}
		tell(file, func(pod, address string) { found[pod] = address })
	}
	if len(found) != 1 || found["a/new"] != "10.244.0.7" {
		t.Error(found)
	}
}
