package supervisor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"
)

type podList struct {
	Items []struct {
		Metadata struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"metadata"`
		Status struct {
			Conditions []struct {
				Type   string `json:"type"`
				Status string `json:"status"`
			} `json:"conditions"`
			Containers []named `json:"containerStatuses"`
		} `json:"status"`
	} `json:"items"`
}

type named struct {
	Name string `json:"name"`
}

// markPods says of every pod that it is not ready, before the kubelet starts. None has a process yet, but what is stored
// is how they were when the cluster ended, and who reads that takes a dead database for a living one.
func markPods(s Settings, admin *http.Client) {
	query := url.Values{"fieldSelector": {"spec.nodeName=" + s.Node()}}
	response, err := admin.Get(s.server() + "/api/v1/pods?" + query.Encode())
	if err != nil {
		say("listing the pods: %v", err)
		return
	}
	defer response.Body.Close()
	var list podList
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil {
		say("listing the pods: %v", err)
		return
	}
	var group sync.WaitGroup
	for _, pod := range list.Items {
		for _, condition := range pod.Status.Conditions {
			if condition.Type == "Ready" && condition.Status == "True" {
				path := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/status", pod.Metadata.Namespace, pod.Metadata.Name)
				group.Go(func() { markPod(admin, s.server()+path, pod.Status.Containers) })
			}
		}
	}
	group.Wait()
}

func markPod(admin *http.Client, url string, containers []named) {
	now := time.Now().UTC().Format(time.RFC3339)
	not := func(kind string) m {
		return m{"type": kind, "status": "False", "reason": "NodeRestarted", "lastTransitionTime": now}
	}
	var statuses []m
	for _, container := range containers {
		statuses = append(statuses, m{"name": container.Name, "ready": false, "started": false})
	}
	body, err := json.Marshal(m{"status": m{
		"conditions": []m{not("Ready"), not("ContainersReady")}, "containerStatuses": statuses,
	}})
	if err != nil {
		return
	}
	request, err := http.NewRequest(http.MethodPatch, url, bytes.NewReader(body))
	if err != nil {
		return
	}
	request.Header.Set("Content-Type", "application/strategic-merge-patch+json")
	response, err := admin.Do(request)
	if err != nil {
		say("marking a pod: %v", err)
		return
	}
	response.Body.Close()
}
