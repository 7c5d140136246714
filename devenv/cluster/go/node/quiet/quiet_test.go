package quiet_test

import (
	"strings"
	"testing"

	_ "devenv/node/quiet"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/workqueue" // the provider that would count
)

func TestAQueueWithANameIsNotMeasured(t *testing.T) {
	queue := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[string]{Name: "quiet"})
	defer queue.ShutDown()
	queue.Add("an item")
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if strings.HasPrefix(family.GetName(), "workqueue_") && len(family.GetMetric()) > 0 {
			t.Errorf("%s has a figure: %v", family.GetName(), family.GetMetric())
		}
	}
}
