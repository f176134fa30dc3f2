//! Groups of metrics with the same labels, declared as one table.
//!
//! [`metrics!`](self) makes two structs of a table: the handles that the request path holds (each an
//! `Arc` of an atomic), and the families that create and remove them. Finding a series in its family
//! takes a lock; using a handle takes none.

use std::fmt;
use std::marker::PhantomData;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Label names and values; the names are fixed, the values come from the configuration.
pub(super) type Labels = Vec<(&'static str, String)>;

/// A field of a group: one metric, or one for each value of a [`Bounded`] label.
pub(super) trait Series: Sized {
    /// All series of the field, by their labels.
    type Family: fmt::Debug;
    /// Registers a field of a group without labels.
    fn single(registry: &mut Registry, name: &'static str, help: &str) -> Self;
    fn register(registry: &mut Registry, name: &'static str, help: &str) -> Self::Family;
    fn resolve(family: &Self::Family, labels: &Labels) -> Self;
    fn remove(family: &Self::Family, labels: &Labels);
}

/// The values of one label, all known at compile time.
pub trait Bounded: Copy + fmt::Debug + 'static {
    /// The name of the label.
    const LABEL: &'static str;
    /// Every value, in the order of [`Bounded::index`].
    const ALL: &'static [Self];
    /// The value as it is shown.
    fn as_str(self) -> &'static str;
    /// The index of the value in [`Bounded::ALL`].
    fn index(self) -> usize;
}

/// One metric for each value of a bounded label. All exist from the start: `rate()` does not see the
/// increment that creates a series.
#[derive(Debug)]
pub struct Each<V, M = Counter> {
    series: Box<[M]>,
    values: PhantomData<V>,
}

impl<V: Bounded> Each<V, Counter> {
    /// Counts one.
    pub fn inc(&self, value: V) {
        if let Some(counter) = self.get(value) {
            counter.inc();
        }
    }
}

impl<V: Bounded> Each<V, Gauge> {
    /// Sets the gauge of the value to 1 and all others to 0.
    pub fn set_only(&self, value: V) {
        for &other in V::ALL {
            if let Some(gauge) = self.get(other) {
                gauge.set(i64::from(other.index() == value.index()));
            }
        }
    }
}

impl<V: Bounded, M> Each<V, M> {
    /// The metric of one value; always `Some`, as there is one for every value of `V`.
    pub fn get(&self, value: V) -> Option<&M> {
        self.series.get(value.index())
    }
}

impl<V, M: Clone> Clone for Each<V, M> {
    fn clone(&self) -> Self {
        Self {
            series: self.series.clone(),
            values: PhantomData,
        }
    }
}

impl<V: Bounded, M: Series> Series for Each<V, M> {
    type Family = M::Family;

    fn single(registry: &mut Registry, name: &'static str, help: &str) -> Self {
        Self::resolve(&Self::register(registry, name, help), &Labels::new())
    }

    fn register(registry: &mut Registry, name: &'static str, help: &str) -> Self::Family {
        M::register(registry, name, help)
    }

    fn resolve(family: &Self::Family, labels: &Labels) -> Self {
        let each = V::ALL.iter();
        Self {
            series: each
                .map(|&v| M::resolve(family, &with_label(labels, v)))
                .collect(),
            values: PhantomData,
        }
    }

    fn remove(family: &Self::Family, labels: &Labels) {
        for &value in V::ALL {
            M::remove(family, &with_label(labels, value));
        }
    }
}

impl<M> Series for M
where
    M: EncodeMetric + TypedMetric + Clone + Default + Send + Sync + fmt::Debug + 'static,
{
    type Family = Family<Labels, M>;

    fn single(registry: &mut Registry, name: &'static str, help: &str) -> Self {
        let metric = M::default();
        registry.register(name, help, metric.clone());
        metric
    }

    fn register(registry: &mut Registry, name: &'static str, help: &str) -> Self::Family {
        let family = Family::default();
        registry.register(name, help, family.clone());
        family
    }

    fn resolve(family: &Self::Family, labels: &Labels) -> Self {
        family.get_or_create_owned(labels)
    }

    fn remove(family: &Self::Family, labels: &Labels) {
        family.remove(labels);
    }
}

fn with_label<V: Bounded>(labels: &Labels, value: V) -> Labels {
    let own = (V::LABEL, value.as_str().to_owned());
    labels.iter().cloned().chain([own]).collect()
}

/// Adds one to a gauge until it is dropped, also if its owner is cancelled.
#[derive(Debug)]
#[must_use = "the gauge is decremented when this is dropped"]
pub(crate) struct GaugeGuard(Gauge);

impl GaugeGuard {
    /// Adds one until the guard is dropped.
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Declares a group: `pub struct HANDLES from FAMILIES { FIELD: TYPE = NAME, … }`. The doc comment of a
/// field is also its `HELP` text. A group without labels is `alone`: it has handles, but no families.
macro_rules! metrics {
    (
        $(#[$meta:meta])*
        pub struct $Handles:ident alone {
            $( $(#[doc = $help:literal])+ $field:ident: $Kind:ty = $name:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $Handles {
            $( $(#[doc = $help])+ pub $field: $Kind, )+
        }

        impl $Handles {
            fn register(registry: &mut Registry) -> Self {
                Self {
                    $( $field: <$Kind as Series>::single(
                        registry,
                        $name,
                        help(concat!($($help),+)),
                    ), )+
                }
            }
        }
    };
    (
        $(#[$meta:meta])*
        pub struct $Handles:ident from $Families:ident {
            $( $(#[doc = $help:literal])+ $field:ident: $Kind:ty = $name:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $Handles {
            $( $(#[doc = $help])+ pub $field: $Kind, )+
        }

        /// The series of all label values of one group.
        #[derive(Debug)]
        pub(super) struct $Families {
            $( $field: <$Kind as Series>::Family, )+
        }

        impl $Families {
            fn register(registry: &mut Registry) -> Self {
                Self {
                    $( $field: <$Kind as Series>::register(
                        registry,
                        $name,
                        help(concat!($($help),+)),
                    ), )+
                }
            }

            fn resolve(&self, labels: &Labels) -> $Handles {
                $Handles {
                    $( $field: <$Kind as Series>::resolve(&self.$field, labels), )+
                }
            }

            fn remove(&self, labels: &Labels) {
                $( <$Kind as Series>::remove(&self.$field, labels); )+
            }
        }
    };
}

/// Declares the values of a bounded label: `pub enum NAME as "label" { Variant = "value", … }`.
macro_rules! bounded {
    (
        $(#[$meta:meta])*
        pub enum $Name:ident as $label:literal {
            $( $(#[$doc:meta])+ $Variant:ident = $value:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $Name {
            $( $(#[$doc])+ $Variant, )+
        }

        impl Bounded for $Name {
            const LABEL: &'static str = $label;
            const ALL: &'static [Self] = &[$( Self::$Variant, )+];

            fn as_str(self) -> &'static str {
                match self {
                    $( Self::$Variant => $value, )+
                }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// A doc comment as `HELP` text, without the full stop, which the encoder adds.
pub(super) fn help(text: &str) -> &str {
    text.trim().trim_end_matches('.')
}

pub(super) use {bounded, metrics};
