// Package policy makes NetworkPolicies hold: nftables rules in the cluster's own network namespace, made anew when a
// policy, a pod or a namespace changes. Nothing runs when packets pass, and nothing at all where there is no policy.
//
// It judges what is forwarded from or to a pod. What goes between a pod and its own node (probes, the name server, the
// API server) is always let through, as the API says of ipBlock: "traffic to and from the node where a Pod is running
// is always allowed". What is denied is rejected with "admin-prohibited", so that a client is told at once.
package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const table = "devenv_policy"

// world is what rules are made of.
type world struct {
	policies   []*networking.NetworkPolicy
	namespaces map[string]labels.Set
	pods       []pod
}

// pod is one with an address in the cluster's network.
type pod struct {
	namespace string
	name      string
	address   string
	labels    labels.Set
	ports     []core.ContainerPort
}

// direction is one way of traffic, seen from the pod that a policy is about.
type direction struct {
	chain string // the beginning of the chains' names
	own   string // what matches the pod itself
	other string // what matches the other end
}

var (
	in  = direction{"in", "daddr", "saddr"}
	out = direction{"out", "saddr", "daddr"}
)

// rules is the whole table as nft reads it, replaced in one step.
func rules(w world) string {
	chains := map[string][]string{}
	jumps := map[direction]map[string]string{in: {}, out: {}}
	for _, policy := range w.policies {
		selected, err := meta.LabelSelectorAsSelector(&policy.Spec.PodSelector)
		if err != nil {
			continue // the API server lets no such policy in
		}
		for _, p := range w.pods {
			if p.namespace != policy.Namespace || !selected.Matches(p.labels) {
				continue
			}
			for _, kind := range policy.Spec.PolicyTypes {
				way, allowed := in, w.ingress(policy, p)
				if kind == networking.PolicyTypeEgress {
					way, allowed = out, w.egress(policy)
				}
				name := way.chain + "_" + strings.ReplaceAll(p.address, ".", "_")
				jumps[way][p.address] = name
				chains[name] = append(chains[name], allowed...)
			}
		}
	}
	text := &strings.Builder{}
	fmt.Fprintf(text, "table ip %[1]s\ndelete table ip %[1]s\n", table)
	if len(chains) > 0 {
		write(text, chains, jumps)
	}
	return text.String()
}

func write(text *strings.Builder, chains map[string][]string, jumps map[direction]map[string]string) {
	fmt.Fprintf(text, "table ip %s {\n", table)
	own := map[string]string{}
	for _, way := range []direction{in, out} {
		for address, name := range jumps[way] {
			own[name] = fmt.Sprintf("ip %s %s return", way.other, address) // a pod may always reach itself
		}
	}
	for _, name := range slices.Sorted(maps.Keys(chains)) {
		fmt.Fprintf(text, " chain %s {\n  %s\n", name, own[name])
		for _, rule := range slices.Compact(slices.Sorted(slices.Values(chains[name]))) {
			fmt.Fprintf(text, "  %s\n", join(rule, "return"))
		}
		fmt.Fprintf(text, "  reject with icmp type admin-prohibited\n }\n")
	}
	text.WriteString(" chain forward {\n  type filter hook forward priority filter; policy accept;\n")
	text.WriteString("  ct state established,related accept\n")
	for _, way := range []direction{out, in} {
		var entries []string
		for _, address := range slices.Sorted(maps.Keys(jumps[way])) {
			entries = append(entries, address+" : jump "+jumps[way][address])
		}
		if len(entries) > 0 {
			fmt.Fprintf(text, "  ip %s vmap { %s }\n", way.own, strings.Join(entries, ", "))
		}
	}
	text.WriteString(" }\n}\n")
}

func (w world) ingress(policy *networking.NetworkPolicy, target pod) []string {
	var found []string
	for _, rule := range policy.Spec.Ingress {
		for _, from := range w.peers(policy.Namespace, rule.From, in) {
			if len(rule.Ports) == 0 {
				found = append(found, from.match)
			}
			for _, wanted := range rule.Ports {
				for _, port := range ports(wanted, target) {
					found = append(found, join(from.match, port))
				}
			}
		}
	}
	return found
}

// egress finds a port's number by its name at each pod that may be reached; at addresses outside no port has a name.
func (w world) egress(policy *networking.NetworkPolicy) []string {
	var found []string
	for _, rule := range policy.Spec.Egress {
		for _, to := range w.peers(policy.Namespace, rule.To, out) {
			if len(rule.Ports) == 0 {
				found = append(found, to.match)
			}
			for _, wanted := range rule.Ports {
				if !isNamed(wanted) {
					found = append(found, join(to.match, ports(wanted, pod{})[0]))
					continue
				}
				for _, target := range to.pods {
					for _, port := range ports(wanted, target) {
						found = append(found, join("ip daddr "+target.address, port))
					}
				}
			}
		}
	}
	return found
}

func join(words ...string) string {
	return strings.TrimSpace(strings.Join(words, " "))
}

// peer is a match for addresses, "" for all of them, and the pods behind it.
type peer struct {
	match string
	pods  []pod
}

// peers are the other ends that a rule allows; no peers at all means all.
func (w world) peers(namespace string, wanted []networking.NetworkPolicyPeer, way direction) []peer {
	if len(wanted) == 0 {
		return []peer{{"", w.pods}}
	}
	var found []peer
	for _, one := range wanted {
		if one.IPBlock != nil && strings.Contains(one.IPBlock.CIDR, ":") {
			continue // IPv6, of which there is none here
		}
		if one.IPBlock != nil {
			found = append(found, peer{match: block(one.IPBlock, way)})
			continue
		}
		var addresses []string
		var pods []pod
		for _, p := range w.pods {
			if w.matches(one, namespace, p) {
				pods = append(pods, p)
				addresses = append(addresses, p.address)
			}
		}
		if len(pods) > 0 {
			slices.Sort(addresses)
			match := fmt.Sprintf("ip %s { %s }", way.other, strings.Join(slices.Compact(addresses), ", "))
			found = append(found, peer{match, pods})
		}
	}
	return found
}

func block(one *networking.IPBlock, way direction) string {
	match := fmt.Sprintf("ip %s %s", way.other, one.CIDR)
	if len(one.Except) > 0 {
		match += fmt.Sprintf(" ip %s != { %s }", way.other, strings.Join(one.Except, ", "))
	}
	return match
}

func (w world) matches(one networking.NetworkPolicyPeer, namespace string, p pod) bool {
	if one.NamespaceSelector == nil && p.namespace != namespace {
		return false
	}
	if one.NamespaceSelector != nil && !selects(one.NamespaceSelector, w.namespaces[p.namespace]) {
		return false
	}
	return one.PodSelector == nil || selects(one.PodSelector, p.labels)
}

func selects(selector *meta.LabelSelector, set labels.Set) bool {
	parsed, err := meta.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(set)
}

func isNamed(port networking.NetworkPolicyPort) bool {
	return port.Port != nil && port.Port.Type == intstr.String
}

// ports are the matches for one port of a rule: one, or as many as the target has of that name.
func ports(wanted networking.NetworkPolicyPort, target pod) []string {
	protocol := core.ProtocolTCP
	if wanted.Protocol != nil {
		protocol = *wanted.Protocol
	}
	word := strings.ToLower(string(protocol))
	switch {
	case wanted.Port == nil:
		return []string{"ip protocol " + word}
	case wanted.EndPort != nil:
		return []string{fmt.Sprintf("%s dport %d-%d", word, wanted.Port.IntVal, *wanted.EndPort)}
	case !isNamed(wanted):
		return []string{fmt.Sprintf("%s dport %d", word, wanted.Port.IntVal)}
	}
	var found []string
	for _, port := range target.ports {
		if port.Name == wanted.Port.StrVal && cmp.Or(port.Protocol, core.ProtocolTCP) == protocol {
			found = append(found, fmt.Sprintf("%s dport %d", word, port.ContainerPort))
		}
	}
	return found
}
