package policy

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

const (
	coalesce = 10 * time.Millisecond // changes that come together make one table
	retry    = time.Second
)

// enforcer keeps the table in step with the cluster.
type enforcer struct {
	client  kubernetes.Interface
	node    string
	changed chan struct{} // of capacity one: that something changed, not what
	policy  cache.SharedIndexInformer

	mutex  sync.Mutex
	early  map[string]string // namespace/name of a pod to the address that it was given
	others []cache.SharedIndexInformer
}

// Run keeps the rules until the context ends. Pods and namespaces are followed only once there is a policy.
func Run(ctx context.Context, client kubernetes.Interface, node string) {
	factory := informers.NewSharedInformerFactory(client, 0)
	e := &enforcer{
		client: client, node: node, changed: make(chan struct{}, 1), early: map[string]string{},
		policy: factory.Networking().V1().NetworkPolicies().Informer(),
	}
	e.follow(ctx, e.policy)
	last := ""
	for e.wait(ctx) {
		if len(e.policy.GetStore().List()) > 0 && e.others == nil {
			e.followOthers(ctx)
		}
		text := rules(e.world())
		if text == last {
			continue
		}
		if err := nft(text); err != nil {
			klog.ErrorS(err, "applying network policies")
			time.AfterFunc(retry, e.touch)
			continue
		}
		last = text
	}
}

func (e *enforcer) wait(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-e.changed:
	}
	time.Sleep(coalesce)
	select { // what came meanwhile is in this round already
	case <-e.changed:
	default:
	}
	return true
}

func (e *enforcer) touch() {
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

// follow returns when the informer knows all there is.
func (e *enforcer) follow(ctx context.Context, informer cache.SharedIndexInformer) {
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { e.touch() },
		UpdateFunc: func(any, any) { e.touch() },
		DeleteFunc: func(any) { e.touch() },
	})
	go informer.Run(ctx.Done())
	cache.WaitForCacheSync(ctx.Done(), informer.HasSynced)
}

func (e *enforcer) followOthers(ctx context.Context) {
	ours := informers.NewSharedInformerFactoryWithOptions(e.client, 0, informers.WithTweakListOptions(
		func(options *meta.ListOptions) {
			options.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", e.node).String()
		}))
	all := informers.NewSharedInformerFactory(e.client, 0)
	e.others = []cache.SharedIndexInformer{ours.Core().V1().Pods().Informer(), all.Core().V1().Namespaces().Informer()}
	for _, informer := range e.others {
		e.follow(ctx, informer)
	}
	go func() {
		if err := early(results, e.given); err != nil {
			klog.ErrorS(err, "following the addresses of new pods")
		}
	}()
}

func (e *enforcer) given(pod, address string) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.early[pod] = address
	e.touch()
}

func (e *enforcer) world() world {
	w := world{namespaces: map[string]labels.Set{}}
	for _, item := range e.policy.GetStore().List() {
		w.policies = append(w.policies, item.(*networking.NetworkPolicy))
	}
	if e.others == nil {
		return w
	}
	for _, item := range e.others[1].GetStore().List() {
		namespace := item.(*core.Namespace)
		w.namespaces[namespace.Name] = namespace.Labels
	}
	e.mutex.Lock()
	defer e.mutex.Unlock()
	known := map[string]bool{}
	for _, item := range e.others[0].GetStore().List() {
		object := item.(*core.Pod)
		key := object.Namespace + "/" + object.Name
		known[key] = true
		if p, ok := seen(object, e.early[key]); ok {
			w.pods = append(w.pods, p)
		}
	}
	for key := range e.early {
		if !known[key] {
			delete(e.early, key)
		}
	}
	return w
}

// seen is the pod as rules see it, if it has an address in the cluster's network and still uses it.
func seen(object *core.Pod, early string) (pod, bool) {
	ended := object.Status.Phase == core.PodSucceeded || object.Status.Phase == core.PodFailed
	address := object.Status.PodIP
	if address == "" {
		address = early
	}
	if ended || address == "" || object.Spec.HostNetwork {
		return pod{}, false
	}
	p := pod{namespace: object.Namespace, name: object.Name, address: address, labels: object.Labels}
	for _, container := range object.Spec.Containers {
		p.ports = append(p.ports, container.Ports...)
	}
	for _, container := range object.Spec.InitContainers {
		p.ports = append(p.ports, container.Ports...)
	}
	return p, true
}

func nft(text string) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, strings.TrimSpace(said.String()))
	}
	return nil
}
