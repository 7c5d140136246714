package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
)

const (
	simulatedLabel = "devenv.local/simulated"
	simulatedUser  = "system:devenv-simulate"
	// the block that is kept for benchmarks (RFC 2544): no pod has these addresses, and nobody else
	simulatedPods = "198.18.0.0/16"
)

func simulatedName(nth int) string { return fmt.Sprintf("simulated-%03d", nth) }

// simulatedPart plays the kubelets of the simulated nodes.
func simulatedPart(s Settings, admin *http.Client) part {
	return part{
		name: "simulate", env: environment(), after: []string{"kube-apiserver"},
		argv: []string{
			binaries + "/simulate", "-kubeconfig", s.etc("simulate.kubeconfig"), "-pod-addresses", simulatedPods,
		},
		probe: func() error { return simulatedReady(s, admin) },
	}
}

// simulatedObjects are the nodes, closed to pods that do not ask for them, and what their kubelet may do.
func simulatedObjects(s Settings) []object {
	if s.Simulated == 0 {
		return nil
	}
	rule := func(group string, resources, verbs []string) m {
		return m{"apiGroups": []string{group}, "resources": resources, "verbs": verbs}
	}
	reads := []string{"get", "list", "watch"}
	role := "rbac.authorization.k8s.io"
	all := []object{
		{"/apis/" + role + "/v1/clusterroles", m{
			"apiVersion": role + "/v1", "kind": "ClusterRole", "metadata": m{"name": "devenv:simulate"},
			"rules": []m{
				rule("", []string{"nodes"}, reads),
				rule("", []string{"pods"}, append(reads, "delete", "patch", "update")),
				rule("", []string{"nodes/status", "pods/status"}, []string{"patch", "update"}),
				rule("", []string{"events"}, []string{"create", "patch", "update"}),
				rule("coordination.k8s.io", []string{"leases"}, append(reads, "create", "patch", "update")),
			},
		}},
		{"/apis/" + role + "/v1/clusterrolebindings", m{
			"apiVersion": role + "/v1", "kind": "ClusterRoleBinding", "metadata": m{"name": "devenv:simulate"},
			"roleRef":  m{"apiGroup": role, "kind": "ClusterRole", "name": "devenv:simulate"},
			"subjects": []m{{"apiGroup": role, "kind": "User", "name": simulatedUser}},
		}},
	}
	for nth := range s.Simulated {
		all = append(all, object{"/api/v1/nodes", m{
			"apiVersion": "v1", "kind": "Node",
			"metadata": m{
				"name": simulatedName(nth + 1), "annotations": m{"kwok.x-k8s.io/node": "fake"},
				"labels": m{simulatedLabel: "true", "kubernetes.io/hostname": simulatedName(nth + 1), "kubernetes.io/os": "linux"},
			},
			"spec": m{"taints": []m{{"key": simulatedLabel, "value": "true", "effect": "NoSchedule"}}},
		}})
	}
	return all
}

type nodeList struct {
	Items []struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		node
	} `json:"items"`
}

func simulatedNodes(s Settings, admin *http.Client) (nodeList, error) {
	var list nodeList
	query := url.Values{"labelSelector": {simulatedLabel}, "resourceVersion": {"0"}}
	response, err := admin.Get(s.server() + "/api/v1/nodes?" + query.Encode())
	if err != nil {
		return list, err
	}
	defer response.Body.Close()
	return list, json.NewDecoder(response.Body).Decode(&list)
}

func simulatedReady(s Settings, admin *http.Client) error {
	list, err := simulatedNodes(s, admin)
	if err != nil {
		return err
	}
	ready := 0
	for _, item := range list.Items {
		for _, condition := range item.Status.Conditions {
			if condition.Type == "Ready" && condition.Status == "True" {
				ready++
			}
		}
	}
	if ready < s.Simulated {
		return fmt.Errorf("%d of %d simulated nodes are Ready", ready, s.Simulated)
	}
	return nil
}

// removeSimulated deletes the simulated nodes that are no longer wanted; their pods go with them.
func removeSimulated(s Settings, admin *http.Client) error {
	list, err := simulatedNodes(s, admin)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for nth := range s.Simulated {
		wanted[simulatedName(nth+1)] = true
	}
	for _, item := range list.Items {
		if wanted[item.Metadata.Name] {
			continue
		}
		address := s.server() + "/api/v1/nodes/" + item.Metadata.Name
		request, err := http.NewRequestWithContext(context.Background(), http.MethodDelete, address, nil)
		if err != nil {
			return err
		}
		response, err := admin.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
	}
	return nil
}
